"""DOC"""

_base_ = "finetune_hymenoptera.py"

hooks = [dict(type="Freeze", patterns=["*"], exclude=["fc"])]
