"""Blind listening in a notebook: the questions of a session as ipywidgets.

The sounds are inside the widget and answers travel over the notebook's own connection, so that it
works wherever a notebook does, also where the kernel runs on another machine.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from musicgen_lab.errors import InvalidRequest, RunFolderUnwritable
from musicgen_lab.listening.blind.session import BlindSession
from musicgen_lab.listening.blind.sounds import equal_sounds
from musicgen_lab.templating import data_uri

if TYPE_CHECKING:
    from ipywidgets import VBox

QUESTIONS = {
    "pairs": "Which one do you prefer?",
    "abx": "Does X have the settings of A or those of B?",
    "rate": "How do you rate this clip, from 0 to 100? Move both sliders.",
}
CHOICES = {
    "pairs": {"Prefer A": "a", "No difference": "none", "Prefer B": "b"},
    "abx": {"X is like A": "a", "X is like B": "b"},
}


def blind_widget(session: BlindSession) -> VBox:
    """Return a session as a widget that shows one question after another.

    Parameters
    ----------
    session : BlindSession

    Returns
    -------
    ipywidgets.VBox
    """
    import ipywidgets

    box = ipywidgets.VBox()

    def show(error: str = "") -> None:
        trial = session.trial
        if trial is None:
            box.children = [ipywidgets.HTML("<p>All questions are answered. Thank you.</p>")]
            return
        comment = ipywidgets.Text(description="Comment", placeholder="optional")

        def send(**given: Any) -> None:
            try:
                session.answer(trial.id, comment=comment.value, **given)
            except (InvalidRequest, RunFolderUnwritable) as refused:
                show(str(refused))
            else:
                show()

        def button(text: str, **given: Any) -> ipywidgets.Button:
            made = ipywidgets.Button(description=text)
            made.on_click(lambda _: send(**given))
            return made

        clips = [session.table.clip(key) for key in trial.clips]
        names = "ABX" if len(clips) > 1 else [""]
        players = "".join(
            f'<p style="align-items: center; display: flex; gap: 0.5em">{name} '
            f'<audio controls src="{data_uri(sound, ".wav")}" '
            f'aria-label="Play {name or "the clip"}"></audio></p>'
            for name, sound in zip(
                names, equal_sounds(clips, session.length_s(trial)), strict=False
            )
        )
        count = f"{session.answered} answer{'s' * (session.answered != 1)}"
        head = (
            f"<p>{escape(session.listener)}: {count} so far.</p>"
            f"<p><b>{QUESTIONS[session.mode]}</b> “{escape(session.prompt(trial))}”</p>{players}"
        )
        if error:
            head = f"<p><b>{escape(error)}</b></p>{head}"
        rows = [ipywidgets.HTML(head)]
        if session.mode == "rate":
            scales = {
                name: ipywidgets.IntSlider(value=50, min=0, max=100, description=name)
                for name in ("quality", "fit")
            }
            rate = ipywidgets.Button(description="Next", disabled=True)
            moved: set[str] = set()

            def move(change: dict[str, Any]) -> None:
                moved.add(change["owner"].description)
                rate.disabled = len(moved) < len(scales)

            for scale in scales.values():
                scale.observe(move, "value")
            rate.on_click(lambda _: send(**{name: one.value for name, one in scales.items()}))
            rows += [*scales.values()]
            choices = [rate, button("Skip", quality=None, fit=None)]
        else:
            choices = [
                button(text, choice=choice) for text, choice in CHOICES[session.mode].items()
            ]
            choices.append(button("Skip", choice="skip"))
        box.children = [*rows, ipywidgets.HBox(choices), comment]

    show()
    return box
