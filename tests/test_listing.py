"""What `visreg list` shows."""

import contextlib
import io
import re
import subprocess
import sys

import pytest
from installed import install, on_path

import visreg
from visreg.errors import PluginError, RegistryError
from visreg.listing import _summary, show
from visreg.plugin_file import load_file
from visreg.registry import KINDS

MODULE = '''
from torch import nn
class {name}(nn.Module):
    """Does `nothing <http://example.org>`_ of :class:`~torch.nn.Note`. And this is the second sentence.

    Not the third.
    """
    def __init__(self, width: int, depth: int = 2, label: str = "x") -> None:
        super().__init__()
'''


@pytest.fixture
def site(tmp_path):
    with on_path(tmp_path):
        yield tmp_path
    for name in [name for name in sys.modules if name.startswith("listed_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(site):
    install(site, "listed-net", "1.2", "[visreg.models]\nListedNet = listed_net:ListedNet\n",
            {"listed_net": MODULE.format(name="ListedNet")})  # fmt: skip


@pytest.fixture
def shown(capsys):
    def run(kind=None, name=None):
        show(kind, name)
        return capsys.readouterr().out

    return run


def test_shows_every_name_by_kind_and_origin(shown):
    text = shown()
    for kind, registry in KINDS.items():
        assert f"{kind} ({len(list(registry))})\n" in text
        assert all(re.search(rf"[ :]{name}[\n *]", text) for name in registry), kind
    assert f"  visreg {visreg.__version__}: AirbenchNet ConvNet" in text
    assert re.search(r"  torch \d\S+: \S", text)
    assert "\x1b" not in text


def test_names_are_shown_without_importing_torch():
    code = (
        "import sys; from visreg.registry import KINDS; from visreg.listing import show; show(None, None);"
        "plugins = [c for r in KINDS.values() for n in r for c in r.claims(n) if c.source == 'plugin'];"
        "assert plugins or not {'torch', 'torchvision', 'rich'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_plugin_is_shown_with_its_version(plugin, shown):
    assert "  listed-net 1.2: ListedNet\n" in shown()


def test_broken_plugin_is_shown_with_its_reason(site, shown):
    install(
        site, "listed-bad", "0.3", "[visreg.hooks]\nBadHook = listed_bad:BadHook\n", {"listed_bad": "import no_such"}
    )
    for text in (shown(), shown("hooks")):
        assert re.search(
            r"broken: 'BadHook': plugin listed-bad 0\.3 failed to import .*No module named 'no_such'", text
        )
    assert "  listed-bad 0.3: BadHook*\n" in shown()
    with pytest.raises(PluginError, match=r"listed-bad 0\.3"):
        show("hooks", "BadHook")


def test_conflict_and_hidden_plugin_are_shown(site, shown):
    module = MODULE.format(name="BothNet")
    install(site, "listed-a", "1.0", "[visreg.models]\nBothNet = listed_a:BothNet\n", {"listed_a": module})
    install(
        site,
        "listed-b",
        "1.0",
        "[visreg.models]\nBothNet = listed_b:BothNet\nMLP = listed_b:MLP\n",
        {"listed_b": module},
    )
    for text in (shown(), shown("models")):
        assert re.search(
            r"conflict: models: 'BothNet' is registered by listed-. .* and by listed-. .*; uninstall one", text
        )
        assert "hidden: 'MLP' of listed-b 1.0 (listed_b:MLP), since visreg has one of that name" in text


def test_file_is_shown_with_its_path(site, shown):
    (site / "mine.py").write_text(
        "from visreg import MODELS\n@MODELS.register\ndef mine_net(width: int = 2): return width\n"
    )
    load_file(site / "mine.py")
    assert f"  {site / 'mine.py'}: mine_net\n" in shown()
    assert "(width=2)" in shown("models", "mine_net") or "width: int = 2" in shown("models", "mine_net")


def test_a_kind_is_a_table_of_origin_signature_and_summary(plugin, shown):
    (line,) = (line for line in shown("model").splitlines() if line.startswith("ListedNet "))
    assert line.split("  ", 1)[1].strip().startswith("listed-net 1.2")
    assert line.endswith("  (width, depth=2, label='x')  Does nothing of Note.")


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("optimizers", "SGD", r"\(lr=0\.001, momentum=0"),
        ("schedules", "Cosine", r"\(total_steps=…, warmup_steps=0, final=0\.0\)"),
        ("transforms", "RandomHorizontalFlip", r"\(p=0\.5\)"),
        ("transforms", "AutoAugment", r"\(policy='imagenet'"),
        ("tasks", "Classification", r"[(, ]mean=None, std=None"),
        ("datasets", "ImageFolder", r"\(root, split=None"),
        ("datasets", "CIFAR10", r"\(root=…, train=True"),
        ("hooks", "ClipGrad", r"\(max_norm, norm_type=2\.0\)"),
        ("models", "resnet18", r"\(weights=None, progress=True, block=…, layers=…, num_classes=1000"),
    ],
)
def test_signatures_leave_out_what_visreg_sets(shown, kind, name, options):
    (line,) = (line for line in shown(kind).splitlines() if line.startswith(f"{name} "))
    assert re.search(options, line)


@pytest.mark.parametrize("kind", [form for kind in KINDS for form in (kind, kind.removesuffix("s"))])
def test_every_kind_can_be_shown(kind, shown):
    known = kind if kind in KINDS else f"{kind}s"
    if known in KINDS:
        assert len(shown(kind).splitlines()) == len(list(KINDS[known]))


def test_one_name_is_shown_whole(plugin, shown):
    assert shown("models", "ListedNet").splitlines() == [
        "ListedNet, one of the models, from listed-net 1.2 (listed_net:ListedNet)",
        "",
        "Does `nothing <http://example.org>`_ of :class:`~torch.nn.Note`. And this is the second sentence.",
        "",
        "Not the third.",
        "",
        "Options:",
        "    width: int  (required)",
        "    depth: int = 2",
        "    label: str = 'x'",
        "",
        "In a config:",
        '    plugins = ["listed-net"]',
        '    model = dict(type="ListedNet", width=...)',
    ]


def test_every_name_of_visreg_can_be_shown_with_a_snippet_that_is_a_config(shown):
    for kind, registry in KINDS.items():
        for name in registry:
            if registry.find(name).source == "own":
                values = {}
                exec("".join(line.strip() for line in shown(kind, name).partition("In a config:\n")[2:]), values)
                assert f"'type': '{name}'" in repr(
                    {key: value for key, value in values.items() if key != "__builtins__"}
                )


def test_a_component_without_options_says_so(shown):
    assert "No options." in shown("transforms", "Identity")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("hoks", None, "no kind 'hoks'; did you mean 'hooks'?"),
        ("resnet18", None, "no kind 'resnet18', but it is one of the models; try `visreg list models resnet18`"),
        ("models", "ConvNett", "'ConvNett' is not among the models; did you mean 'ConvNet'"),
        ("hooks", "resnet18", "it is one of the models"),
    ],
)
def test_wrong_kind_or_name_gets_advice(kind, name, said):
    with pytest.raises(RegistryError, match=re.escape(said)):
        show(kind, name)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    for name, value in {"COLUMNS": "60", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(kind=None, name=None):
        with contextlib.redirect_stdout(Terminal()) as terminal:
            show(kind, name)
        return terminal.getvalue()

    return run


def test_a_terminal_gets_wrapped_lines(on_terminal):
    text = on_terminal()
    assert "\x1b[1mmodels (" in text
    lines = [line for line in text.splitlines() if line.startswith("  ") and "*" not in line]
    assert lines
    assert max(map(len, lines)) <= 60


def test_a_terminal_gets_a_table_that_fits(on_terminal):
    text = on_terminal("hooks")
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in text.splitlines()) <= 60
    assert "EarlyStopping" in text


def test_no_colour_where_none_is_wanted(on_terminal, monkeypatch):
    assert "\x1b" in on_terminal("models", "ConvNet")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal("models", "ConvNet")


@pytest.mark.parametrize(
    ("docstring", "summary"),
    [
        ("Scales it. And more.", "Scales it."),
        ("Scales\n    it all\n\n    And more.", "Scales it all"),
        ("`CIFAR10 <https://example.org>`_ Dataset.", "CIFAR10 Dataset."),
        ("Sees ``this`` and :func:`~a.b.that`.", "Sees this and that."),
        (None, ""),
    ],
)
def test_summary_is_the_first_sentence_in_plain_text(docstring, summary):
    def component(): ...

    component.__doc__ = docstring
    assert _summary(component) == summary
