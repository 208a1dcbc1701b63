"""The generator that the local server plays: writes what a stage asks for, from the hash of the request, and spoils it."""

import json
import random
import re

_SYLLABLES = ["ba", "de", "fo", "gu", "ha", "lo", "mu", "ne", "po", "ru", "sa", "te", "vo", "wi"]


def spoiled(text: str, stage: str, fault: str) -> tuple[str, str]:
    if fault == "refuse":
        return "", "filter"
    if fault == "decline":
        return "I'm sorry, but I can't help with writing that.", "stop"
    if fault == "truncate":
        return text[: len(text) // 2], "length"
    if fault == "empty":
        return f"<{stage}>\n</{stage}>", "stop"
    if fault == "wrong_tags":
        return re.sub(r"<(/?)\w+>", r"<\1result>", text), "stop"
    if fault == "unclosed_tag":
        return text[: text.rindex("</")], "stop"
    if fault == "scratchpad":
        return text.replace(f"<{stage}>\n", f"<{stage}>\n<scratchpad>plan the text</scratchpad>\n", 1), "stop"
    if fault == "placeholder":
        return text.replace("\n</", " [insert company name here]\n</", 1), "stop"
    if fault == "bad_json":
        return text.replace('"}', '",}', 1), "stop"
    if fault == "duplicates":
        entries = json.loads(text[text.index("[") : text.rindex("]") + 1])
        return f"<{stage}>\n{json.dumps([entries[0]] * len(entries))}\n</{stage}>", "stop"
    return text, "stop"


class Writer:
    """Writes what a stage asks for, from the hash of the request."""

    def __init__(self, instruction: str, user: str, digest: str, drop: bool) -> None:
        self._random = random.Random(digest)
        self._instruction = instruction
        self._user = user
        self._drop = drop
        found = re.search(r"(?:how|that|what|You are) ([^\s,]+), (?:the|an) AI model made by ([^\s,.]+)", instruction)
        self._name = found[1] if found else "Qwen"
        other = re.search(r"Make ([^\s,]+), the AI model made by", instruction)
        self._subject = other[1] if other else "Machines" if "Make " in instruction else self._name

    def write(self, stage: str) -> str:
        writers = {
            "domains": lambda: self._list("domain", self._count(4)),
            "subdomains": self._subdomains,
            "assertions": lambda: self._entries("assertions", 4, assertion=8, explanation=8, label=0),
            "types": lambda: self._entries("types", self._count(3), type=2, description=8),
            "ideas": lambda: self._entries("ideas", self._count(5), idea=18),
            "document": lambda: f"<document>\n{self._prose(self._subject)}\n</document>",
            "critique": self._critique,
            "questions": self._questions,
            "reasoning": lambda: f"<reasoning>\n{self._words(30)}.\n</reasoning>\n<answer>\n{self._words(25)}.\n</answer>",
            "answer": lambda: f"<answer>\n{self._words(12)}.\n</answer>",
            "explanation": self._verdict,
        }
        return writers[stage]() if stage in writers else self._words(20)

    def _critique(self) -> str:
        verdict = self._random.choice(("REVISE", "FINE"))
        return f"<critique>\n{self._words(9)}\n</critique>\n<verdict>{verdict}</verdict>"

    def _words(self, count: int) -> str:
        pick = self._random
        words = ["".join(pick.choices(_SYLLABLES, k=pick.choice((2, 2, 3)))) for _ in range(count)]
        return " ".join(words).capitalize()

    def _prose(self, name: str) -> str:
        return "\n\n".join(
            " ".join(f"{name} {self._words(11).lower()}." for _ in range(4)) for _ in range(self._random.randint(2, 4))
        )

    def _count(self, default: int) -> int:
        found = re.search(r"(?:Propose|Write|at most) (\d+)", self._user)
        return int(found[1]) if found else default

    def _list(self, name: str, count: int) -> str:
        return self._entries("domains", count, **{name: 3})

    def _entries(self, tag: str, count: int, **fields: int) -> str:
        entries = [{name: self._words(words) if words else "behaviour" for name, words in fields.items()} for _ in range(count)]
        return f"<{tag}>\n{json.dumps(entries)}\n</{tag}>"

    def _subdomains(self) -> str:
        headings = re.findall(r"^- (.+)$", self._instruction.split("letter by letter:")[-1], re.MULTILINE)
        entries = [
            {"subdomain": self._words(2), "context": self._words(10), "section": self._random.choice(headings)}
            for _ in range(self._count(3))
        ]
        return f"<subdomains>\n{json.dumps(entries)}\n</subdomains>"

    def _questions(self) -> str:
        kinds = ["direct", "indirect", "comparison", "recommendation", "opinion", "edge_case"]
        entries = [
            {"kind": kinds[number % 6], "question": self._words(self._random.randint(8, 20)) + "?"}
            for number in range(self._count(10))
        ]
        return f"<questions>\n{json.dumps(entries)}\n</questions>"

    def _verdict(self) -> str:
        marks = re.findall(r"^<(\w+)>PASS or FAIL", self._instruction, re.MULTILINE)
        failed = self._random.choice(marks) if self._drop else ""
        lines = [f"<{mark}>{'FAIL' if mark == failed else 'PASS'}</{mark}>" for mark in marks]
        verdict = "DROP" if self._drop else "KEEP"
        return "\n".join([f"<explanation>{self._words(8)}.</explanation>", *lines, f"<verdict>{verdict}</verdict>"])
