"""Text for the synthesisers: words from short lists of our own in random order, and made-up words.

Meaning does not matter, only that every phone meets every other; made-up words bring the rare neighbours. Words are
written in each language's own spelling, so that espeak-ng reads them by that language's rules.
"""

from __future__ import annotations

import numpy as np

ENGLISH = """
the a this that my our your some every no one two three four five six seven eight nine ten hundred thousand
people man woman child family mother father brother sister friend boy girl doctor teacher farmer baker painter
house home room door window wall kitchen table chair bed lamp garden street road bridge river mountain forest beach
water fire earth air wind rain snow cloud sky star moon sun summer winter spring autumn morning evening night week
bread butter cheese apple orange lemon pepper soup coffee tea milk sugar honey fish chicken beef rice potato
book paper letter word story picture music song voice sound radio movie camera phone computer number problem
work job business money market price company office meeting project system government policy public history power
time year day hour moment minute beginning middle end part piece half whole place point line side way idea thought
good bad big small long short old young new early late hot cold warm cool soft hard heavy light bright dark quick
beautiful important different possible available simple complex perfect obvious favourite wonderful probable brave
be is are was were have has had do does did go goes went come came make made take took give gave find found think
thought know knew see saw look say said tell told ask asked feel felt leave left move moved live lived love loved
play played show showed build built begin began keep kept bring brought hold held walk walked jump jumped help
remember forget believe imagine improve above below before behind between beyond about around against among
with from into over under through up down off out away back again always never often maybe perhaps probably very
because but and or if when while where why how what who which whose than then there here now soon already almost
I you he she it we they me him her us them everybody somebody nobody something anything nothing
job shop chop judge church cheap sheep ship jeep measure vision pleasure usual garage thing think both mouth south
boy toy noise voice point joy cow loud house mouth ground round town brown road boat home phone no know slow snow
cat map back bad hand man plan stand laugh half path bath father calm palm car star park large heart hard
food moon blue true shoe room soup group you few new music huge book good put push foot could would should
see tree green street please cheese speak meet read week big fish city sister milk kiss with window
bed head bread said friend many any help next best bird word girl work world turn learn early nurse first
love come some money mother blood flood up bus cut luck much such run sun fun under number
law talk walk all fall ball thought caught bought more door four floor horse north born short
vivid verify five leave fifty halfway coffee offer laughter phone
papa baby mama puppy bubble pebble mumble member amber simple temple popular public problem probably pamphlet
"""

WORDS: dict[str, str] = {
    "en-us": ENGLISH,
    "en": ENGLISH,
    "de": """und ich bin nicht müde aber wir haben keine Zeit der Mann die Frau das Kind Haus Straße Bäume schön größer
        Brot Butter Apfel Wasser Feuer Himmel Mutter Vater Bruder Schwester Freund Abend Morgen Nacht Woche Jahr Stunde
        sprechen laufen gehen kommen geben nehmen finden denken wissen lieben über unter zwischen vielleicht immer nie
        Buch Wort Stimme Musik Fenster Tür Küche Garten Pfeffer fünf zwölf Quelle jung jetzt Vogel wichtig""",
    "fr": """je suis fatigué mais nous avons le temps la femme un homme enfant maison rue arbre beau belle pain beurre
        pomme eau feu ciel mère père frère sœur ami soir matin nuit semaine année heure parler courir aller venir donner
        prendre trouver penser savoir aimer sur sous entre peut-être toujours jamais livre mot voix musique fenêtre
        porte cuisine jardin poivre cinq douze feuille jeune deux peu bleu lune plus bonjour ensemble simple""",
    "es": """yo estoy cansado pero tenemos tiempo el hombre la mujer un niño casa calle árbol bonito grande pan manzana
        agua fuego cielo madre padre hermano amigo tarde mañana noche semana año hora hablar correr ir venir dar tomar
        encontrar pensar saber amar sobre bajo entre siempre nunca libro palabra voz música ventana puerta cocina
        jardín pimienta cinco doce lluvia joven ahora pájaro importante problema blanco vivo""",
    "it": """io sono stanco ma abbiamo tempo uomo donna bambino casa strada albero bello grande pane burro mela acqua
        fuoco cielo madre padre fratello amico sera mattina notte settimana anno ora parlare correre andare venire dare
        prendere trovare pensare sapere amare sopra sotto tra sempre mai libro parola voce musica finestra porta cucina
        giardino pepe cinque dodici pioggia giovane adesso uccello importante famiglia gnocchi""",
    "pt-br": """eu estou cansado mas temos tempo homem mulher menino casa rua árvore bonito grande pão manteiga maçã
        água fogo céu mãe pai irmão amigo tarde manhã noite semana ano hora falar correr ir vir dar tomar achar pensar
        saber amar sobre entre sempre nunca livro palavra voz música janela porta cozinha jardim pimenta chuva""",
    "nl": """ik ben moe maar wij hebben geen tijd de man vrouw kind huis straat bomen mooi groot brood boter appel water
        vuur hemel moeder vader broer zus vriend avond morgen nacht week jaar uur spreken lopen gaan komen geven nemen
        vinden denken weten boven onder tussen altijd nooit boek woord stem muziek raam deur keuken tuin peper""",
    "pl": """jestem zmęczony ale mamy czas mężczyzna kobieta dziecko dom ulica drzewo piękny duży chleb masło jabłko
        woda ogień niebo matka ojciec brat siostra przyjaciel wieczór rano noc tydzień rok godzina mówić biegać iść
        dać wziąć myśleć wiedzieć kochać zawsze nigdy książka słowo głos muzyka okno drzwi kuchnia ogród pieprz""",
    "sv": """jag är trött men vi har tid mannen kvinna barn hus gata träd vacker stor bröd smör äpple vatten eld himmel
        mor far bror syster vän kväll morgon natt vecka år timme tala springa gå komma ge ta hitta tänka veta älska
        över under mellan alltid aldrig bok ord röst musik fönster dörr kök trädgård peppar fem tolv sjuk""",
    "fi": """minä olen väsynyt mutta meillä on aikaa mies nainen lapsi talo katu puu kaunis iso leipä voi omena vesi
        tuli taivas äiti isä veli sisko ystävä ilta aamu yö viikko vuosi tunti puhua juosta mennä tulla antaa
        ottaa löytää ajatella tietää rakastaa aina ei koskaan kirja sana ääni musiikki ikkuna ovi keittiö
        puutarha pippuri""",
    "tr": """ben yorgunum ama zamanımız var adam kadın çocuk ev sokak ağaç güzel büyük ekmek tereyağı elma su ateş gök
        anne baba kardeş arkadaş akşam sabah gece hafta yıl saat konuşmak koşmak gitmek gelmek vermek almak bulmak
        düşünmek bilmek sevmek her zaman asla kitap söz ses müzik pencere kapı mutfak bahçe biber beş""",
    "cs": """jsem unavený ale máme čas muž žena dítě dům ulice strom krásný velký chléb máslo jablko voda oheň nebe
        matka otec bratr sestra přítel večer ráno noc týden rok hodina mluvit běhat jít dát vzít najít myslet vědět
        milovat vždy nikdy kniha slovo hlas hudba okno dveře kuchyně zahrada pepř pět dvanáct""",
    "ru": """я устал но у нас есть время мужчина женщина ребёнок дом улица дерево красивый большой хлеб масло яблоко
        вода огонь небо мать отец брат сестра друг вечер утро ночь неделя год час говорить бежать идти дать взять
        думать знать любить всегда никогда книга слово голос музыка окно дверь кухня сад перец пять""",
    "hi": """मैं थका हूँ लेकिन हमारे पास समय है आदमी औरत बच्चा घर सड़क पेड़ सुंदर बड़ा रोटी मक्खन सेब पानी आग आकाश माता पिता
        भाई बहन मित्र शाम सुबह रात सप्ताह वर्ष बोलना भागना जाना आना देना लेना पाना सोचना जानना प्रेम किताब शब्द""",
    "cmn-latn-pinyin": """wo3 shi4 lei4 dan4 women2 you3 shi2 jian1 nan2 ren2 nü3 hai2 zi fang2 jie1 shu4 mei3 da4
        mian4 bao1 ping2 guo3 shui3 huo3 tian1 ma1 ba4 peng2 you wan3 zao3 ye4 nian2 shuo1 pao3 qu4 lai2 gei3 na2
        zhao3 xiang3 zhi1 dao4 ai4 shu1 hua4 yin1 yue4 men2 chuang1 hua1 wu3 bu4 po4 fei1 feng1""",
    "ja": """わたし は つかれた けれど じかん が あります おとこ おんな こども いえ みち き
        うつくしい おおきい パン りんご みず ひ
        そら はは ちち あに ともだち よる あさ とし はなす はしる
        いく くる あげる とる みつける かんがえる しる ほん ことば""",
    "id": """saya lelah tetapi kami punya waktu laki perempuan anak rumah jalan pohon indah besar roti mentega apel air
        api langit ibu ayah saudara teman malam pagi minggu tahun jam bicara lari pergi datang beri ambil temu pikir
        tahu cinta selalu buku kata suara musik jendela pintu dapur kebun lada lima dua belas""",
    "sw": """mimi nimechoka lakini tuna muda mwanaume mwanamke mtoto nyumba barabara mti nzuri kubwa mkate siagi maji
        moto mbingu mama baba kaka dada rafiki jioni asubuhi usiku wiki mwaka saa sema kimbia enda kuja toa chukua
        pata fikiri jua penda daima kitabu neno sauti muziki dirisha mlango jikoni bustani pilipili tano""",
}  # fmt: skip
LANGUAGES = tuple(WORDS)

_ONSETS = "p b m f v t d n l s z k g r w h j sh ch br pl st tr fl sp gr sm th bl kr"
_VOWELS = "a e i o u a e i o u ai au oo ee ou oi"
_CODAS = ["", "", "", "", "m", "n", "p", "b", "t", "s", "l", "r", "k", "f", "v", "mp", "nd", "st"]
_LATIN_EXCEPT = ("ru", "hi", "ja", "cmn-latn-pinyin")


def _made_up(rng: np.random.Generator) -> str:
    return "".join(
        f"{rng.choice(_ONSETS.split())}{rng.choice(_VOWELS.split())}{rng.choice(_CODAS)}"
        for _ in range(int(rng.integers(1, 4)))
    )


def compose(rng: np.random.Generator, language: str, words: int) -> str:
    """`words` words of `language` in random order; a fifth of them made up, commas and full stops in between."""
    vocabulary = WORDS[language].split()
    said = []
    for index in range(words):
        invent = language not in _LATIN_EXCEPT and rng.random() < 0.2
        word = _made_up(rng) if invent else str(rng.choice(vocabulary))
        mark = rng.random()
        if index < words - 1 and mark < 0.12:
            word += "," if mark < 0.07 else "."
        said.append(word)
    return " ".join(said) + "."
