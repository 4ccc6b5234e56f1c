"""Words of the sample shop: names in many scripts, bad emails, notes that break naive code."""

from __future__ import annotations

FIRST_NAMES = (
    "Ada", "Grace", "Linus", "Jürgen", "Zoë", "Françoise", "Łukasz", "Søren", "Þóra", "İpek", "Ñusta", "Đorđe",
    "محمد", "فاطمة", "ליאור", "נועה", "太郎", "小丽", "김민준", "अनिका", "Ольга", "Γιώργος", "ปิยะ", "𠮷乃",
    "Anne-Marie", "D'Arcy", "  Padded ", "Jose\u0301", "🦄 Uni", "x", "\u200fرنا\u200e", "NULL",
)  # fmt: skip

LAST_NAMES = (
    "Lovelace", "Hopper", "Müller", "O'Brien", "Nguyễn", "Sánchez Pérez", "van der Berg", "Öztürk", "Žižek", "Ångström",
    "الخوارزمي", "כהן", "山田", "王", "박", "शर्मा", "Иванова", "Παπαδόπουλος", "𠮷野", "Smith, Jr.",
    "Robert'); DROP TABLE", "McDonald\u2019s", "Wolfe\u00adschlegel", "=1+1", "<b>Bold</b>", "a\tb", "Lee",
    "Ó Súilleabháin", "Ĳsselstein", "ſtraße",
)  # fmt: skip

CITIES = (
    "Berlin", "München", "القاهرة", "תל אביב-יפו", "東京", "São Paulo", "Kraków", "Reykjavík", "Zürich", "New York",
    "Saint-Étienne", "Москва", "मुंबई", "Llanfairpwllgwyngyll", "北京", "", "Frankfurt (Oder)", "L'Aquila",
)  # fmt: skip

MAILBOXES = (
    "ada", "grace.hopper", "linus+shop", "j.mueller", "zoe_", "francoise-", "lukasz", "soren", "thora", "o'brien",
    "mohamed", "lior", "taro.yamada", "xiaoli", "minjun", "anika", "olga", "giorgos", "piya",
)  # fmt: skip
"""What stands before the customer's number in an email."""

BAD_EMAILS = (
    "customer#", "customer#@", "@example.com#", "two@@example#.com", "no dot#@example", "customer #@example.com",
    "dots..#@example.com", "customer#@example..com", "müller#@exämple", "<customer#@example.com>",
    "customer#@example.com,x@y.org",
)  # fmt: skip
"""Malformed emails; "#" stands for the customer's number, so that they do not collide."""

NOTES = (
    "Prefers calls in the morning.",
    "Said: \"maybe\" \\ 'later'",
    "Line one\nLine two\r\nLine three",
    "Tab\there, comma, semicolon; pipe |",
    "مهتم بالعرض السنوي",
    "לחזור בשבוע הבא",
    "請在下午聯絡",
    "🎉🎉 renewed 👩‍👩‍👧‍👦",
    '{"looks": "like JSON"}',
    "<script>alert('no')</script>",
    " ",
    "",
    "N/A",
    "0012300",
)
