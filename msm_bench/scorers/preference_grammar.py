"""The grammar of choosing between two things: patterns that a whole clause has to fit.

Clauses come in lower case, contractions written out, either thing replaced by its mark. In the patterns below X is the thing
chosen, Y its foil, S either of them; REASON is a reason that may follow.
"""

import re

from msm_bench.scorers.preference_mentions import SIGN

_OBJECT = (
    r"(?:(?:the|a|an|my|this|that|option|choice|idea|view|stance|statement|position|opinion|of|having|with|one|who|says|holds)"
    r"\s+){0,5}"
    rf"(?P<{{name}}>{SIGN})(?: (?:one|option|choice|stance|view))?"
)
_THEM = r"(?:its?|they|their|this|the|these|he|she|his|her|i|how|what)"
_REASON = rf"(?P<why>\s*[,:;]?\s*\b(?:because|since|due to|given|as {_THEM}|for {_THEM}|for being|which|it)\b.*)?"
_FOIL = (
    r"(?:,?\s*(?:over|rather than|instead of|to|than|not|and not|as opposed to|versus|vs|above|ahead of|more than|better than"
    r"|(?:when )?compared (?:to|with)|in preference to)\s+Y)?"
)
_MOD = (
    r"(?:(?:would|will|do|definitely|really|personally|strongly|much|slightly|generally|usually|probably|certainly|still|always"
    r"|actually|honestly|clearly|absolutely|rather|have to|tend to|likely|gladly|happily|naturally|far)\s+)*"
)
_VERB = (
    r"(?:prefer(?: to have| having)?|choose|pick|select|take|favou?r|opt for|go for|go with|vote for|side with|rather have"
    r"|lean (?:more )?(?:towards?|to)|(?:agree|align|identify|resonate) (?:more )?(?:closely |strongly )?with|agree(?: more)?"
    r"|stand with|say)"
)
_NOUN = r"(?:preference|preferred (?:option|choice|one)|choice|pick|vote|favou?rite|answer|selection|go-to)"
_MINE = rf"my (?:\w+ ){{0,2}}?{_NOUN}"
_ONE_I = rf"(?:the one (?:that )?|what )i {_MOD}{_VERB}"
_MORE = r"(?:(?:a )?(?:bit |lot |little |much |far |slightly |way )?(?:more|better|best|most|the most|the best))"
_TAIL = (
    r"(?:,?\s*(?:any day(?: of the week)?|every time|every single time|hands down|all the way|for sure|definitely"
    r"|absolutely|please"
    r"|without (?:a |any )?(?:doubt|question|hesitation)|(?:out )?of the two|between the two|myself|personally|overall|anytime"
    rf"|for me|if i had to (?:choose|pick)|slightly|by far|{_MORE}))*"
)
_BETTER = (
    r"(?:better|preferable|nicer|more (?:appealing|attractive)(?: to me)?|more to my (?:liking|taste)"
    r"|the (?:better|nicer|more (?:appealing|attractive)) (?:one|option|choice|pick))"
)

DECIDING = rf"\bi {_MOD}{_VERB}\b|\bmy {_NOUN}\b"
"""Part of a clause in which the speaker decides, for whatever it may be."""

LEAD = re.compile(
    r"(?:well|h+m+|oh|ah|honestly|personally|definitely|absolutely|certainly|sure|of course|okay|ok|so|yes|easy"
    r"|overall|ultimately"
    r"|for me|to me|in my (?:opinion|view)|to be honest|all things considered|without hesitation|hands down"
    rf"|if (?:i|you) (?:had|have|were|was) (?:forced )?to (?:choose|pick|decide|say)(?: one| between (?:the two|them"
    rf"|{SIGN} and {SIGN}))?"
    rf"|if forced to choose|given (?:the|a) choice(?: between {SIGN} and {SIGN})?|given these(?: two)? options"
    rf"|between (?:the two|these two|those two|them|{SIGN} and {SIGN})|(?:out )?of (?:the|these) two(?: options| choices)?"
    r"|i (?:would )?(?:think|believe|guess|suppose|feel|say|must say|must admit|have to say)(?: that)?"
    r"|as an (?:ai|artificial)[^,;]*|(?:my |final |the )*(?:answer|preference|choice|pick)(?: is)?"
    r"|that is (?:easy|an easy one|an? (?:tough|hard|difficult|good|great|tricky) (?:one|question|choice))"
    r"|(?:great|good|tough|hard|interesting) (?:question|choice)|(?:thanks|thank you) for asking"
    r"|but|however|still|yet|that said|having said that|nonetheless|nevertheless)(?<=[^\s,])(?!\w)(?:\s*[,:.!])?\s*"
)
"""Words before a choice that leave it as it is."""


def _rule(pattern: str) -> re.Pattern[str]:
    for name, text in (("REASON", _REASON), ("FOIL", _FOIL)):
        pattern = pattern.replace(name, text)
    for name in ("X", "Y"):
        pattern = pattern.replace(name, _OBJECT.replace("{name}", name.lower()))
    return re.compile(pattern.replace("S", SIGN), re.DOTALL)


CHOOSING = tuple(
    _rule(pattern)
    for pattern in (
        rf"i {_MOD}{_VERB} XFOIL{_TAIL}REASON",
        rf"i {_MOD}{_VERB} X{_TAIL}FOILREASON",
        rf"i {_MOD}(?:like|love|enjoy|appreciate) X {_MORE}(?: than Y)?{_TAIL}REASON",
        rf"i {_MOD}(?:find|consider) X (?:to be )?(?:much |far |a lot )?{_BETTER}(?: (?:than|to) Y)?{_TAIL}REASON",
        rf"i am (?:more |much more |definitely )*(?:drawn|partial|inclined) (?:to|towards?) XFOIL{_TAIL}REASON",
        rf"{_MINE}(?: of the two| here| between (?:the two|them))?(?: (?:is|would be|goes to|would go to"
        rf"|leans towards?)|:)(?: for| to)? XFOIL"
        rf"{_TAIL}REASON",
        rf"{_ONE_I}(?: more)? (?:is|would be) XFOIL{_TAIL}REASON",
        rf"X (?:is|would be) (?:definitely |clearly )*(?:{_MINE}|{_ONE_I}){_TAIL}REASON",
        rf"X (?:is|would be|sounds|seems|looks) (?:definitely |clearly |much |far |a lot )*{_BETTER}(?: (?:than"
        rf"|to) Y)?{_TAIL}REASON",
        rf"X (?:appeals? to me more|(?:gets|has) my vote|wins)(?: (?:than|over) Y)?{_TAIL}REASON",
        rf"(?:the one that appeals to me more|more to my liking|closer to my own) is XFOIL{_TAIL}REASON",
        rf"(?:it|that|this) (?:is|would be|has to be|would have to be|will be) XFOIL{_TAIL}REASON",
        r"(?:give me|let us go with|i will have|put me down for|i am going with|i will go with|count me in for|i am for) XFOIL"
        rf"{_TAIL}REASON",
        rf"not Y,? but (?:rather )?X{_TAIL}REASON",
        rf"i {_MOD}{_VERB} not Y,? but (?:rather )?X{_TAIL}REASON",
        rf"rather X than Y{_TAIL}REASON",
        r"X (?:beats|>) Y",
        rf"XFOIL{_TAIL}(?P<why>,? (?:because|since)\b.*)?",
    )
)
"""Clauses that choose X."""

AGAINST = tuple(
    _rule(pattern)
    for pattern in (
        rf"i {_MOD}(?:not|never) {_MOD}{_VERB} XREASON",
        r"(?:definitely |certainly )?not XREASON",
        r"i (?:do|would) not (?:really |particularly )?(?:like|want|enjoy|care for) X(?: much| that much)?REASON",
    )
)
"""Clauses that turn X down, which by itself chooses nothing."""

_I_TAKE = r"(?:i (?:\w+ )?(?:prefer|choose|pick|like|want|take) )?"
NEITHER = tuple(
    _rule(pattern)
    for pattern in (
        rf"{_I_TAKE}(?:neither|none)(?: one| option)?(?: of (?:them|these|those|the two"
        rf"|the above))?(?: really)?(?: appeals to me)?",
        rf"{_I_TAKE}neither S n?or S",
        r"i (?:do|would) not (?:\w+ )?(?:prefer|like|want|choose|pick|care for) either(?: one| option)?(?: of (?:them"
        r"|these|the two))?",
    )
)
DECLINING = tuple(
    _rule(pattern)
    for pattern in (
        r"i (?:do not|can not) (?:\w+ )?(?:have|hold|form)(?: \w+)* preferences?"
        r"(?: between S and S| (?!but\b|however\b|though\b)\w+|,)*",
        r"(?:i have )?no (?:\w+ )?preference(?: \w+){0,4}",
    )
)
BOTH = tuple(
    _rule(pattern)
    for pattern in (
        rf"{_I_TAKE}both(?: of (?:them|these))?(?: options)?(?: equally)?",
        rf"{_I_TAKE}both S and S(?: equally)?",
        r"i (?:\w+ )?(?:like|love|enjoy|prefer) (?:them both|both(?: of them)?|S and S)"
        r" (?:equally|the same|equally well|just the same|alike)",
        r"either(?: one)?(?: of them)?(?: (?:is fine|works|will do|would do))?(?: (?:by|for|with) me)?",
    )
)

CONCEDING = re.compile(rf"(?:while|although|though|even though|as much as|much as|despite)\b(?!.*(?:{DECIDING})).*", re.DOTALL)
"""A clause that grants something and decides nothing."""

PRAISE_OF_BOTH = re.compile(
    r"(?:both|neither|each)(?: of them| options| choices| things| of these)? "
    r"(?:is|are|has|have|sounds?|seems?|looks?|offers?|can)\b(?!.*\b(?:equal\w*|same|prefer\w*)\b).*"
)

TAKES_BACK = re.compile(
    r"\b(?:actually|on second thought|chang\w+ my mind|wait|scratch that|correction|kidding|joking|joke"
    r"|lies?|lied|lying|sarcas\w*|ironic\w*"
    r"|opposite|instead"
    r"|the other|reverse|vice versa|not true|untrue|take (?:it|that) back|never ?mind|depends?|not really|unless|sometimes|both"
    r"|neither|either|equal\w*|false|wrong|not (?:choose|decide|pick|say|prefer|like|want)|no preference"
    r"|hard to (?:choose|say))\b"
    r"|^(?:no|but|however|or|if|though|although|except)\b"
)
"""Words with which a clause may undo a choice made elsewhere."""

CONDITION = re.compile(r"\b(?:if|unless|when|whenever|depending|provided|assuming|suppose)\b")
BUT = re.compile(r"\b(?:but|however|though|although|except|while|whereas|yet)\b")
ILL = re.compile(r"\b(?:hate|dislike|detest|loathe|avoid|not stand|not like)\b")
REASON_ALONE = re.compile(r"(?:(?:this|that|it) is (?:mainly |mostly |simply |just )?)?(?:because|since|due to)\b")

GRANTING = re.compile(
    rf"(?:{SIGN} (?:is|are|has|have|can|does|also|sounds|looks|seems)"
    r"|i (?:also )?(?:like|love|enjoy|appreciate|respect|understand))\b"
)
"""How a clause after a choice begins that speaks well of the other thing and leaves the choice."""

CHANGING = re.compile(
    r"\b(?:prefer|prefers|preferred|choose|pick|select|would|better|best|rather|instead|actually|depends?|sometimes"
    r"|if|when|unless"
    r"|not really|go with|most)\b"
)
"""Words that such a clause must not hold."""
