"""How a lesson sets the page: the same choice that a visitor would make by hand, in one step that undo takes back."""

from dataclasses import dataclass, replace

from ui.errors import NotYet
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Choice, Moment, Scored, Session
from ui.state.view import Selection


@dataclass(frozen=True)
class Press:
    """What a lesson presses: both sliders, and perhaps a head in the map, (layer, head), or a calibration text.

    Everything else of the choice stands as it does at first, as it did when the lesson's facts were measured.
    """

    attention: float = 0.0
    mlp: float = 0.0
    head: tuple[int, int] | None = None
    text: str | None = None


def pressed(session: Session, press: Press, scored: Scored | None) -> Session:
    """The session as the lesson sets it.

    `scored`: the scores that the lessons were measured with, which come into view where it is their model's turn; with
    another model the sliders take the nearest step. Raises `NotYet` where there is no model.
    """
    if session.spec is None:
        raise NotYet("No model is loaded, so there is nothing that the lesson could set; load one first.")
    spec = session.spec
    choice = replace(Choice(), attention=slider_steps.nearest_attention(spec, press.attention), mlp=press.mlp)
    at_hand = scored if session.key == BUNDLED and scored is not None else session.scored
    after = plan_of_choice.moved_to(session, Moment(at_hand, choice), control="lesson")
    if press.head is None:
        return after
    layer, head = press.head
    last = spec.num_hidden_layers - 1
    at = min(layer, last)
    selection = Selection(at, head=min(head, spec.layers[at].num_attention_heads - 1))
    return replace(after, view=replace(after.view, selection=selection))
