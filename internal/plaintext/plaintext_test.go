package plaintext_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/beatfabric/hivebeat/internal/plaintext"
)

func TestPrintable(t *testing.T) {
	for what, list := range map[string][]rune{
		"C0, DEL and C1":                {0, '\t', '\n', '\r', 0x1b, 0x1f, 0x7f, 0x80, 0x85, 0x9b, 0x9d, 0x9f},
		"direction":                     {0x061c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069},
		"no width":                      {0x00ad, 0x034f, 0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0xe0041},
		"blank letters":                 {0x115f, 0x1160, 0x3164, 0xffa0},
		"separators and other spaces":   {0x00a0, 0x2028, 0x2029, 0x2003, 0x3000},
		"surrogates, private, no value": {0xd800, 0xe000, 0xf8ff, 0x10fffd, 0x110000, -1, 0x0378},
	} {
		for _, r := range list {
			if plaintext.Printable(r) {
				t.Errorf("%s: U+%04X is printable", what, r)
			}
		}
	}
	for _, r := range " ~aZ0ß€日本語ё…─█�🙂e\u0301" {
		if !plaintext.Printable(r) {
			t.Errorf("U+%04X %q is not printable", r, r)
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"Llama-3.3-70B ~":           "Llama-3.3-70B ~",
		"日本語 ✓":                     "日本語 ✓",
		"a\x1b[31mb\u009b2Jc\x7f":   "a�[31mb�2Jc�",
		"one\ntwo\r\n\tthree\u2028": "one two   three�",
		"gpj.\u202eexe\u2066":       "gpj.�exe�",
		"\xff\x9b\xc2":              "���",
	} {
		if got := plaintext.Line(in); got != want {
			t.Errorf("Line(%+q) = %+q, want %+q", in, got, want)
		}
	}
	if got, want := plaintext.Lines("a\n\tb\r\x1b\u0085c\n"), "a\n\tb ��c\n"; got != want {
		t.Errorf("Lines: %+q, want %+q", got, want)
	}
}

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"b"}`:                              `{"a":"b"}`,
		"{\n\t\"日本語\": \"ß\"\r\n}":               "{\n\t\"日本語\": \"ß\"\r\n}",
		"[\"\u009b31m\",\"\x7f\",\"\u202e\"]":    `["\u009b31m","\u007f","\u202e"]`,
		"\"\U000e0041\U0010fffd\"":               `"\udb40\udc41\udbff\udffd"`,
		"\"\xff\xc2\xe2\x80\"":                   `"\ufffd\ufffd\ufffd\ufffd"`,
		"\"no JSON \x1b[2J\"":                    `"no JSON \u001b[2J"`,
		"\"12345678901234567890\u00a01234567890": `"12345678901234567890\u00a01234567890`,
	} {
		b := []byte(in)
		got := plaintext.JSON(b)
		if string(got) != want {
			t.Errorf("JSON(%+q) = %+q, want %+q", in, got, want)
		}
		if string(b) != in {
			t.Errorf("JSON(%+q) changed its argument to %+q", in, b)
		}
		if in == want && len(b) > 0 && &got[0] != &b[0] {
			t.Errorf("JSON(%+q) copied what it need not change", in)
		}
	}
	var out bytes.Buffer
	if n, err := plaintext.JSONWriter(&out).Write([]byte("\"\u009b\"\n")); n != 5 || err != nil || out.String() != `"\u009b"`+"\n" {
		t.Errorf("JSONWriter: %d, %v, %+q", n, err, out.String())
	}
}

// clean fails if s holds a character that a terminal does not show as such.
func clean(t *rapid.T, s, but string) {
	if !utf8.ValidString(s) {
		t.Fatalf("no UTF-8: %+q", s)
	}
	for _, r := range s {
		if !plaintext.Printable(r) && !strings.ContainsRune(but, r) {
			t.Fatalf("U+%04X in %+q", r, s)
		}
	}
}

// Any text comes out printable, and JSON keeps its meaning.
func TestAnyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) }),
			rapid.StringOf(rapid.RuneFrom([]rune("a日\x00\x1b\x7f\u009b\u202e\u2028\u200b\U000e0041\n\t\r\"\\�")))).Draw(t, "s")
		line := plaintext.Line(s)
		clean(t, line, "")
		if again := plaintext.Line(line); again != line {
			t.Fatalf("Line twice: %+q, then %+q", line, again)
		}
		clean(t, plaintext.Lines(s), "\n\t")

		b, err := plaintext.Marshal(map[string]string{s: s})
		if err != nil {
			t.Fatal(err)
		}
		clean(t, string(b), "")
		var got map[string]string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		valid := strings.ToValidUTF8(s, "\x00")
		if valid == s {
			if diff := cmp.Diff(map[string]string{s: s}, got); diff != "" {
				t.Fatalf("decoded (-want +got):\n%s", diff)
			}
		}
		clean(t, string(plaintext.JSON([]byte(s))), "\n\t\r")
	})
}

func BenchmarkJSON(b *testing.B) {
	for name, s := range map[string]string{
		"ascii": strings.Repeat(`{"hive":"gpu-01","worker":"llama","model":"meta-llama/Llama-3.3-70B-Instruct"},`, 500),
		"cjk":   strings.Repeat(`{"hive":"gpu-01","worker":"llama","model":"日本語のモデル"},`, 500),
	} {
		b.Run(name, func(b *testing.B) {
			in := []byte(s)
			b.SetBytes(int64(len(in)))
			for b.Loop() {
				plaintext.JSON(in)
			}
		})
	}
}
