"""Higgs Audio v2, many streams on one card: what the engine in `tts/higgs.py` is made of.

`weights` loads, `prompt` and `delay` speak the model's language, `slots`, `sampler` and `step` make rows, `prefixes`
keeps what was computed, `codec` and `windows` make sound of rows, `scheduler` decides who goes next."""
