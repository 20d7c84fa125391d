"""The claims as table and page, made from summaries written by hand."""

import json

import pytest

from bvlib.report.claims import CLAIMS
from bvlib.report.page import claims_page, claims_table, counts
from bvlib.report.summary import summary

COUNT = len(CLAIMS)


def summed(*values, measure="asr_rise_over_scaling"):
    """The summary of one run a seed, each with one measure."""
    return summary(
        {
            seed: [{"notebook": "02_bv", "headline": {}, "measures": {measure: value}}]
            for seed, value in enumerate(values)
        }
    )


@pytest.fixture
def figures(tmp_path):
    """A folder of figures in which only mini has the scaling figure."""
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "scaling.png").write_bytes(b"png")
    (tmp_path / "mini" / "scaling.json").write_text(
        json.dumps({"notebook": "02_bv", "caption": "ASR as it is scaled"})
    )
    return tmp_path


def section(page, claim):
    """What the page says of one claim."""
    return page.partition(f'<a id="{claim}"></a>')[2].partition("<a id=")[0]


def test_a_claim_has_its_interval_its_seeds_and_its_status(figures):
    page = claims_page({"mini": summed(10.0, 12.0, 14.0), "real32": summed(5.0)}, figures)
    risen = section(page, "bv-asr-rises")
    assert "### Adding more of the backdoor vector raises ASR" in risen
    assert "- kind of agreement: positive difference, the interval lies above 0 points" in risen
    assert "- paper, on CLIP: 59 to 100 points" in risen and "- designed in: no" in risen
    each = "0: 10.0, 1: 12.0, 2: 14.0"
    assert f"| mini | 12.0 points | 7.0 to 17.0 | {each} | same direction |" in risen
    assert "| real32 | 5.0 points | none: one seed | 0: 5.0 | inconclusive |" in risen
    assert "| paper profile | - | - | - | not run |" in risen
    assert "the interval lies below 1 point" in section(page, "sbv-keeps-accuracy")
    noted = section(page, "badmerging-classical-diluted")
    assert "- note: in its training the base saw" in noted
    assert "- note:" not in section(page, "badmerging-keeps-utility")
    assert "- designed in: yes" in section(page, "inherent-in-base")
    late = "- this test was written after the first runs"
    assert (
        [c.id for c in CLAIMS if late in section(page, c.id)]
        == [c.id for c in CLAIMS if c.later]
        != []
    )


def test_a_claim_without_a_value_was_not_run(figures):
    page = claims_page({"mini": summed(10.0, 12.0), "real32": summed(None, 12.0)}, figures)
    assert section(page, "bv-accuracy-flat").count("| - | - | - | not run |") == 5
    assert "| real32 | 12.0 points | none: one seed | 1: 12.0 | inconclusive |" in section(
        page, "bv-asr-rises"
    )
    named = ("mini", "mini, old base", "real32", "real32, old base", "paper profile")
    assert counts({}) == f"{COUNT} tests: {'; '.join(f'{name} not run' for name in named)}."
    assert page.count("\n### ") == COUNT


def test_a_figure_is_shown_once_and_only_files_that_exist_are_linked(figures):
    page = claims_page({"mini": summed(10.0, 12.0)}, figures)
    assert page.count("<img ") == 1 and "real32/" not in page and "paper/" not in page
    shown = (
        '<td><a href="mini/scaling.png"><img src="mini/scaling.png" width="840" alt="scaling '
        'on mini"></a></td>'
    )
    assert f"<tr>{shown}</tr>" in page and "<td>no picture yet</td>" in page
    assert "- what it shows: ASR as it is scaled\n- drawn by notebook 02_bv\n" in page
    group = page.partition('<a id="figure-scaling"></a>')[2].partition('<a id="figure-')[0]
    assert [claim.id for claim in CLAIMS if f'<a id="{claim.id}"></a>' in group] == [
        c.id for c in CLAIMS if c.figure == "scaling"
    ]
    (figures / "real32").mkdir()
    (figures / "real32" / "scaling.png").write_bytes(b"png")
    (figures / "mini" / "scaling.csv").write_text("x\n")
    (figures / "real32" / "tables").mkdir()
    (figures / "real32" / "tables" / "main.csv").write_text("x\n")
    page = claims_page({"mini": summed(10.0, 12.0)}, figures)
    assert (
        page.count('width="420"') == 2
        and "- what is drawn, every seed: [mini](mini/scaling.csv)\n" in page
    )
    assert "see the table `main` of [real32](real32/tables/main.csv)" in section(
        page, "badmerging-keeps-utility"
    )


@pytest.mark.parametrize("base, title", [("toy", "mini"), ("small", "mini, old base")])
def test_a_picture_of_an_earlier_base_is_called_so(figures, base, title):
    card = {"notebook": "02_bv", "caption": "c", "parameters": {"base": base}, "recipes": ["x:y/1"]}
    (figures / "mini" / "scaling.json").write_text(json.dumps(card))
    page = claims_page({"mini": summed(10.0)}, figures)
    assert f"<tr><th>{title}</th></tr>" in page


def test_the_table_has_ten_claims_that_lead_to_the_page():
    table = claims_table({"mini": summed(10.0, 12.0, 14.0), "real32": summed(None, None)})
    mini = "mini (seeds 0, 1, 2)"
    assert table.startswith(
        f"| claim | paper, on CLIP | we ask for | {mini} | real32 (seeds 0, 1) |\n"
    )
    assert "](figures/claims.md#badmerging-beats-classical) (partly designed in) | " in table
    assert "| above 0 points | 12.0 points [7.0, 17.0]: same direction | not run |" in table
    assert "old base" not in claims_table({"mini": summed(1.0), "old_base": summed(2.0)})
    assert table.count("\n| ") == 10 + 1


def test_claims_that_hang_on_the_base_stand_in_a_table_of_their_own(figures):
    def of(bases):
        page = claims_page(bases, figures)
        return page.partition("## What depends on the base")[2].partition("\n## Each claim")[0]

    risen, old = summed(10.0, 12.0, 14.0), summed(-10.0, -12.0, -14.0)
    titles = "| claim | mini (seeds 0, 1, 2) | mini, old base (seeds 0, 1, 2) |"
    told = of({"mini": risen, "old_base": old})
    assert titles in told and told.count("(#") == 1 and "(#bv-asr-rises) | 12.0 points" in told
    assert "-12.0 points [-17.0, -7.0]: differs |" in told
    both = of({"mini": risen, "old_base": old, "real32": old, "old_real32": risen})
    real = "| claim | real32 (seeds 0, 1, 2) | real32, old base (seeds 0, 1, 2) |"
    assert both.index(titles) < both.index(real) and both.count("(#") == 2
    for same in ({"mini": risen, "old_base": risen}, {"mini": risen}):
        assert of(same).endswith("\n\nNone.\n")


def test_a_claim_with_fewer_seeds_than_its_profile_says_so():
    assert "12.0 points [-7.1, 31.1]: inconclusive" in claims_table({"mini": summed(10.5, 13.5)})
    assert "(2 seeds) |" in claims_table({"mini": summed(10.5, 13.5, None)})
