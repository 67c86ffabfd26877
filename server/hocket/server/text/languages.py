"""What differs between languages when text is cut into sentences. Constants; any thread."""

from dataclasses import dataclass

_ALIASES = {"iw": "he", "in": "id", "ji": "yi", "no": "nb"}

# ISO 639-1.
_CODES = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da
    de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz
    ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln
    lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn nr nv ny oc oj om or os pa pi pl
    ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk
    tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
    """.split()
)

_COMMON_TITLES = "mr mrs ms dr prof st mt"
_COMMON_CLOSING = "etc ltd inc corp co jr sr"
_COMMON_NUMBERED = "no nr p pp fig vol art sec ch cf n°"


@dataclass(frozen=True, slots=True)
class Language:
    """The rules of one language. All words are in lower case, without their last period.

    Attributes:
        code: ISO 639-1.
        titles: Abbreviations that a sentence never ends with: a name or an example follows.
        numbered: Abbreviations that a number follows; the sentence goes on if it does.
        closing: Abbreviations that may end a sentence; the word after them decides.
        starters: Words that, with a capital, begin a sentence rather than go on with a name.
        prepositions: Words that open a phrase of time ("At 5 a.m. Mr. Smith ...").
        has_ordinal_period: Whether `3.` may mean "third", with a capital after it.
        extra_terminators: Sentence terminators of this language alone.
    """

    code: str
    titles: frozenset[str]
    numbered: frozenset[str]
    closing: frozenset[str]
    starters: frozenset[str]
    prepositions: frozenset[str] = frozenset()
    has_ordinal_period: bool = False
    extra_terminators: str = ""


def _language(
    code: str,
    *,
    titles: str = "",
    numbered: str = "",
    closing: str = "",
    starters: str = "",
    prepositions: str = "",
    has_ordinal_period: bool = False,
    extra_terminators: str = "",
) -> Language:
    return Language(
        code,
        titles=frozenset((_COMMON_TITLES + " " + titles).split()),
        numbered=frozenset((_COMMON_NUMBERED + " " + numbered).split()),
        closing=frozenset((_COMMON_CLOSING + " " + closing).split()),
        starters=frozenset(starters.split()),
        prepositions=frozenset(prepositions.split()),
        has_ordinal_period=has_ordinal_period,
        extra_terminators=extra_terminators,
    )


_ENGLISH = _language(
    "en",
    titles="gen sen rep gov capt cmdr lt col maj sgt hon rev pres supt messrs mme mlle vs viz "
    "e.g i.e eg ie approx univ dept",
    numbered="nos eq eqn ref ex exs vols figs secs arts chap ed eds pt pts",
    closing="a.m p.m a.d b.c ph.d m.d b.a m.a bros assn llc plc ave blvd rd jan feb mar apr jun "
    "jul "
    "aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun est al cit ibid hrs mins "
    "secs ft oz lb lbs km kg cm mm",
    starters="a about after all also although an and another are as at because been before being "
    "both but by can could did do does during each either even every few finally first for from "
    "had has have he hence her here his how however i if in indeed instead is it its just last "
    "later let like many maybe meanwhile more moreover most my neither never next no nobody nor "
    "not nothing now of often on once one only or other our out over perhaps please rather "
    "second several she should since so some sometimes soon still such than that the their them "
    "then there therefore these they this those though through thus to today together tomorrow "
    "too two under unless until up was we were what whatever when where whether which while who "
    "whose why with within without would yes yesterday yet you your mr mrs ms dr prof",
    prepositions="at by before after around until since from till",
)

_TABLES = (
    _ENGLISH,
    _language(
        "de",
        titles="hr fr frl dipl ing z.b d.h u.a bzw ca evtl ggf inkl insb vgl sog s.o s.u z.t "
        "u.u o.ä o.g i.d.r geb gest str hrsg",
        numbered="abs bd kap nr s seite ziff abb tab anm art aufl",
        closing="usw u.s.w u.v.m etc gmbh jh jhd a.d v.chr n.chr jan feb apr aug sept okt nov dez",
        starters="aber alle als also am an auch auf aus bei da damit dann das dass dein der des "
        "deshalb die dies diese dieser dieses doch du durch ein eine einen einer er es für "
        "haben hat heute hier ich ihr im in ist ja jede jeder jedoch kein man mein mit nach nein "
        "nicht noch nun nur ob oder sein sie sind so trotzdem und unser viele vom von vor war "
        "warum was wenn wer wie wir wird wo zu zum zur zwar",
        has_ordinal_period=True,
    ),
    _language(
        "fr",
        titles="m mm mme mmes mlle mlles me pr ste p.ex c.-à-d env hab",
        numbered="chap éd vol tome t n num al",
        closing="av apr j.-c s.a s.a.r.l janv févr avr juil sept oct nov déc",
        starters="a à alors après au aucun aujourd'hui aussi avant avec ce cela ces cet cette ceux "
        "chaque comme d'autres dans de depuis des donc du elle elles en encore enfin ensuite est "
        "et "
        "il ils j'ai je l'autre la le les leur lors lorsque mais même mon ne non nos notre nous on "
        "or où oui par parce pas pendant plus pour pourquoi puis quand que quel quelle qui sa sans "
        "selon ses si son sous sur tandis tous tout toute tu un une vos votre vous y",
    ),
    _language(
        "es",
        titles="sr sra srta sres dra d dña fdo ud uds vd vds lic ing arq p.ej ej",
        numbered="núm cap pág págs tomo vol art",
        closing="ee.uu s.a s.l d.c a.c etc ene feb abr ago sept oct nov dic",
        starters="a además ahora al algunos antes aquí así aunque cada casi como con cuando de del "
        "desde después donde durante e el ella ellas ellos en entonces era es esa ese eso esta "
        "este esto estos fue ha hay hoy la las lo los luego más mi mientras muchos ni no nos "
        "nuestra nuestro o otra otro para pero por porque pues que quien se según si sin sino "
        "sobre su sus también tan todo todos tras tu un una usted y ya yo",
    ),
    _language(
        "it",
        titles="sig sigg sig.ra dott dott.ssa ing avv arch on prof.ssa p.es ecc.mo",
        numbered="cap pag pagg art vol",
        closing="ecc s.p.a s.r.l d.c a.c gen feb mar apr mag giu lug ago set ott nov dic",
        starters="a al alla anche ancora c'è che chi ci come con così da dal dei del della di dopo "
        "dove e è ed era erano fra gli i il in io invece la le lo loro lui ma mentre mio molti "
        "nel nella noi non nostro o ogni oggi oppure per perché però più poi prima quando quella "
        "quello questa queste questi questo qui se sei senza si sono su sua suo tra tu tutti tutto "
        "un una uno voi",
    ),
    _language(
        "pt",
        titles="sr sra srta dra eng d profa exmo exma v.exa p.ex ex",
        numbered="núm cap pág págs vol art",
        closing="s.a ltda d.c a.c eua jan fev abr mai ago set out nov dez",
        starters="a agora ainda além ao aos apesar após aqui as assim até cada com como da das de "
        "depois desde do dos durante e é ela elas ele eles em embora enquanto então era essa esse "
        "esta este eu foi há hoje isso isto já lá logo mais mas mesmo meu minha muitos na não nas "
        "nem no nos nós nossa nosso o onde os ou outra outro para pela pelo pois por porque "
        "porém quando que quem se segundo sem seu sim sobre sua também todo todos um uma você",
    ),
    _language(
        "nl",
        titles="dhr mevr mw ir drs mr ds bijv bv m.b.t o.a d.w.z t.o.v i.v.m z.g",
        numbered="blz art hfst afb nr",
        closing="enz e.d b.v n.v jan feb mrt apr aug sept okt nov dec",
        starters="aan alle als alleen altijd bij daar dan dat de deze die dit dit door dus een en "
        "er het hier hij hoe hun ik in is je jij maar meer men met mijn na naar niet nog nu of om "
        "ook op over ten toch toen tot u uit van vandaag veel voor waar waarom want was wat we wij "
        "wie ze zij zijn zo",
    ),
    _language(
        "ru",
        titles="г гг ул пр пл д им т.е т.к т.н т.д.н напр акад проф доц г-н г-жа св тов гр обл",
        numbered="стр рис табл гл ст п пп кв см № кн",
        closing="т.д т.п др пр руб коп тыс млн млрд н.э до.н.э янв февр апр авг сент окт нояб дек",
        starters="а без более был была были было в вот все всё вы где да даже для до его ее если "
        "еще ещё же за зачем здесь и из или им их к каждый как когда кто ли мой мы на над надо "
        "наш не нет ни но о об однако он она они оно от очень по под после потом потому почему "
        "при с сейчас со так также там то того тогда тоже только ты у хотя чем что чтобы эта эти "
        "это этот я",
    ),
    _language(
        "pl",
        titles="p pan mgr inż hab dr np tzn tzw ul al św m.in wg",
        numbered="str rys tab art ust rozdz nr",
        closing="itd itp r w tys mln mld godz",
        has_ordinal_period=True,
    ),
    _language("el", titles="κ κα κος δρ π.χ δηλ βλ", closing="κ.λπ κλπ κ.ά", extra_terminators=";"),
    *(
        _language(code, has_ordinal_period=True)
        for code in (
            "cs", "da", "et", "fi", "hr", "hu", "is", "lv", "nb", "nn", "sk", "sl", "sr", "tr",
        )
    ),
)  # fmt: skip

_LANGUAGES = {language.code: language for language in _TABLES}


def resolve_language(code: str) -> str:
    """Return the ISO 639-1 code of a language tag: `pt-BR` and `PT` are `pt`.

    Raises:
        ValueError: It names no language of ISO 639-1.
    """
    primary = code.replace("_", "-").split("-", 1)[0].lower()
    primary = _ALIASES.get(primary, primary)
    if primary not in _CODES:
        raise ValueError("not an ISO 639-1 code")
    return primary


def rules_of(code: str) -> Language:
    """Return the rules for a code from `resolve_language`; English ones where there are none.

    Abbreviations of other languages rarely end a sentence in English either, and all scripts'
    terminators are known in every language.
    """
    return _LANGUAGES.get(code, _ENGLISH)
