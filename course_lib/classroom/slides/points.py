"""What of a markdown cell stands on the slide, in blocks; all the rest is said by the speaker.

Written to be read, a cell is too long to be projected. On the slide stand its headings, equations, tables and lists,
of each paragraph the first sentence, the sentence that an equation belongs to, every question in italics, and what
follows *Predict before you look:*, *Think.* or *Check:* in its paragraph. A cell that sets an exercise or lists
references stays whole; of the title cell only the title. Folded parts (``<details>``), and the prose as a whole, are
speaker notes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Words of a sentence that says too little alone.
SHORT = 8
#: Letters and signs of an equation that fills a line.
LONG = 52
#: Full stops that end no sentence: of initials and of abbreviations.
_NO_END = re.compile(r"(?:\b[A-Za-z]|\b(?:eq|eqs|sec|al|vs|cf|fig|no|pp|approx|resp|[a-z]\.[a-z]))\.$", re.IGNORECASE)
_ENDS = re.compile(r"[.?!][*\"')]*$")
#: What is one piece whatever punctuation it has inside: formulas, code, links, emphasis.
_PIECE = re.compile(r"\$[^$]+\$|`[^`]+`|!?\[[^\]]*\]\([^)]*\)|\*\*.+?\*\*|(?<!\*)\*[^*\s][^*]*\*", re.DOTALL)
_DETAILS = re.compile(r"[ \t]*<details>.*?</details>[ \t]*\n?", re.DOTALL)
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d+[.)])\s")
_BADGE = re.compile(r"\[!\[[^\]]*\]\(https?:[^)]*\)\]\([^)]*\)")
_LEAD = re.compile(r"\*(?:Predict|Think|Check)\b[^*]*\*")
_ASKS = re.compile(r"\?\*")
_WHOLE = re.compile(r"#+ (?:Exercise|References)\b")


@dataclass(frozen=True)
class Block:
    """A piece of a slide that is never cut: `kind` is heading, equation, table, item, code or text."""

    kind: str
    source: str


def points(markdown: str) -> list[Block]:
    """The blocks of a markdown cell that stand on the slide."""
    found = blocks(_DETAILS.sub("", markdown))
    headings = [at for at, block in enumerate(found) if block.kind == "heading"]
    found = found[headings[0] :] if headings else found  # what stands above a heading closes the section before it
    if found and found[0].source.startswith("# "):
        return found[:1]
    if found and _WHOLE.match(found[0].source):
        return [
            Block("reference", b.source) if "References" in found[0].source and b.kind == "item" else b for b in found
        ]
    kept = []
    for at, block in enumerate(found):
        if block.kind in ("text", "item"):
            before_equation = at + 1 < len(found) and found[at + 1].kind == "equation"
            block = Block(block.kind, essence(block.source, before_equation))
        if block.source:
            kept.append(Block("equation", _broken(block.source)) if block.kind == "equation" else block)
    return kept


def _broken(equation: str) -> str:
    """A long equation of two parts on two lines, as wide as the slide has room for."""
    body = equation.strip("$ \n")
    gaps = [
        found.start()
        for found in re.finditer(r"\\qquad|\\quad\s*\\Rightarrow", body)
        if _is_open(body[: found.start()])
    ]
    if not gaps or len(re.sub(r"[{}^_&\s]", "", re.sub(r"\\[a-zA-Z]+", "x", body))) < LONG:
        return equation
    middle = min(gaps, key=lambda at: abs(at - len(body) / 2))
    return f"$$ \\begin{{gathered}} {body[:middle]} \\\\ {body[middle:]} \\end{{gathered}} $$"


def _is_open(tex: str) -> bool:
    """Whether a line may end here: outside of all braces and environments."""
    return tex.count("{") == tex.count("}") and tex.count(r"\begin") == tex.count(r"\end") == 0


def essence(paragraph: str, before_equation: bool = False) -> str:
    """Of a paragraph, or of an item of a list, the sentences that stand on the slide."""
    if _ITEM.match(paragraph) and "?" in paragraph:  # a question is nothing without what it is about
        return paragraph
    said = sentences(paragraph)
    kept = [False] * len(said)
    for at, sentence in enumerate(said):
        opens = at == 0 or (at == 1 and _words(said[:1]) < SHORT)
        leads = bool(_LEAD.match(sentence)) or (at > 0 and any(map(_LEAD.match, said[:at])))
        broken = at == len(said) - 1 and before_equation and not _ENDS.search(sentence)
        kept[at] = opens or leads or broken or bool(_ASKS.search(sentence))
    dropped = [sentence for sentence, keep in zip(said, kept, strict=True) if not keep]
    if _words(dropped) < SHORT:  # too little to be worth a gap
        dropped = []
    return " ".join(sentence for sentence in said if sentence not in dropped)


def _words(said: list[str]) -> int:
    return len(" ".join(said).split())


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph; formulas, code, links and emphasis are never cut, nor is a lead cut off."""
    whole = _PIECE.sub(lambda found: re.sub(r"\s", "\0", found[0]), text.strip())
    said, begun = [], ""
    for word in re.split(r"(\s+)", whole):
        begun += word
        ends = _ENDS.search(word) and not _NO_END.search(word.rstrip("*\"')"))
        is_lead = re.fullmatch(r"\s*(?:[-+]\s|\d+[.)]\s)?\s*\*{1,2}[^*?]*\*{1,2}|\d+\.", begun.strip())
        if ends and not is_lead:
            said, begun = [*said, begun.strip()], ""
    if begun.strip():
        said.append(begun.strip())
    return [re.sub("\0", " ", sentence) for sentence in said]


def blocks(markdown: str) -> list[Block]:
    """The blocks of a markdown text, in order, each with its whole source; badges are left out."""
    found: list[Block] = []
    for piece in re.split(r"(^```.*?^```|\$\$.*?\$\$)", markdown, flags=re.DOTALL | re.MULTILINE):
        if piece.startswith("```"):
            found.append(Block("code", piece))
        elif piece.startswith("$$"):
            found.append(Block("equation", piece))
        else:
            for paragraph in re.split(r"\n\s*\n", _BADGE.sub("", piece)):
                found += _paragraph(paragraph)
    return found


def _paragraph(text: str) -> list[Block]:
    if not text.strip():
        return []
    if text.lstrip().startswith("#"):
        heading, _, rest = text.strip().partition("\n")
        return [Block("heading", heading), *_paragraph(rest)]
    if text.lstrip().startswith("|"):
        return [Block("table", text.strip("\n"))]
    lines, items = text.strip("\n").split("\n"), []
    for line in lines:
        if _ITEM.match(line) or not items:
            items.append(line)
        else:
            items[-1] += "\n" + line
    return [Block("item" if _ITEM.match(item) else "text", item) for item in items]
