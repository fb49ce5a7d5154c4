package page

import (
	"io/fs"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := fs.ReadFile(Files(), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ours returns the files of the page that are not uPlot's, by extension.
func ours(t *testing.T, ext string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path.Ext(name) == ext && !strings.HasPrefix(name, "uplot/") {
			out[name] = read(t, name)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("no %s files (%v)", ext, err)
	}
	return out
}

// colours returns the names in theme.css with the light and the dark value of each.
func colours(t *testing.T) map[string][2]string {
	t.Helper()
	out := map[string][2]string{}
	for _, m := range regexp.MustCompile(`(--[a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);`).FindAllStringSubmatch(read(t, "theme.css"), -1) {
		out[m[1]] = [2]string{m[2], m[3]}
	}
	if n := strings.Count(read(t, "theme.css"), "light-dark("); n != len(out) {
		t.Fatalf("read %d colours of %d", len(out), n)
	}
	return out
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(hex string) float64 {
	n, _ := strconv.ParseUint(hex[1:], 16, 32)
	linear := func(c uint64) float64 {
		v := float64(c&0xff) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}

func contrast(a, b string) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func TestLuminance(t *testing.T) {
	if c := contrast("#000000", "#ffffff"); math.Abs(c-21) > 0.01 {
		t.Errorf("black on white is %.2f, not 21", c)
	}
	if c := contrast("#777777", "#ffffff"); math.Abs(c-4.48) > 0.01 {
		t.Errorf("#777 on white is %.2f, not 4.48", c)
	}
}

// Every pair of text and background on the page is readable (WCAG AA, 4.5), and every
// meaningful shape, bar and edge is visible (3).
func TestContrast(t *testing.T) {
	all := colours(t)
	pairs := map[string]float64{}
	meet := func(least float64, fronts, grounds string) {
		for f := range strings.FieldsSeq(fronts) {
			for g := range strings.FieldsSeq(grounds) {
				pairs["--"+f+" --"+g] = least
			}
		}
	}
	meet(4.5, "text muted link alive late lost left unverified", "bg panel raised")
	meet(4.5, "text muted alive", "sure-bg")
	meet(4.5, "text muted late alive lost", "warn-bg lost-bg")
	meet(4.5, "warn-text", "warn-bg")
	meet(4.5, "cut-text", "cut-bg")
	meet(3, "ours foreign lost muted", "panel free")
	meet(3, "focus edge", "bg panel")
	meet(3, "focus", "raised sure-bg warn-bg lost-bg")
	for pair, least := range pairs {
		a, b, _ := strings.Cut(pair, " ")
		for i, theme := range []string{"light", "dark"} {
			if all[a][i] == "" || all[b][i] == "" {
				t.Fatalf("%s: no such colour", pair)
			}
			if c := contrast(all[a][i], all[b][i]); c < least {
				t.Errorf("%s, %s: %.2f, wants %.1f", theme, pair, c, least)
			}
		}
	}
}

// Colours are defined only in theme.css, where their contrast is checked.
func TestEveryColourIsDefined(t *testing.T) {
	all := colours(t)
	for name, css := range ours(t, ".css") {
		for _, m := range regexp.MustCompile(`var\((--[a-z-]+)`).FindAllStringSubmatch(css, -1) {
			if _, ok := all[m[1]]; !ok && m[1] != "--row-px" && m[1] != "--verdict" {
				t.Errorf("%s: %s is not defined", name, m[1])
			}
		}
		if name != "theme.css" {
			if m := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b`).FindString(css); m != "" {
				t.Errorf("%s: the colour %s is not of the theme", name, m)
			}
		}
	}
}

// The page contains nothing that runs or loads what the policy forbids, or that turns
// text into markup.
func TestNothingInlineNothingFromElsewhere(t *testing.T) {
	html := read(t, "index.html")
	for what, re := range map[string]string{
		"an inline style":       `<style|\sstyle=`,
		"an inline handler":     `\son[a-z]+=`,
		"an address of another": `(src|href)="(https?:)?//`,
	} {
		if m := regexp.MustCompile("(?i)" + re).FindString(html); m != "" {
			t.Errorf("index.html has %s: %s", what, m)
		}
	}
	for _, m := range regexp.MustCompile(`(?s)<script.*?</script>`).FindAllString(html, -1) {
		if !regexp.MustCompile(`^<script [^>]*src="[^"]+"[^>]*></script>$`).MatchString(m) {
			t.Errorf("index.html has an inline script: %s", m)
		}
	}
	for name, js := range ours(t, ".js") {
		for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function", "javascript:", "https://", "http://", "createContextualFragment", "srcdoc"} {
			if strings.Contains(js, bad) {
				t.Errorf("%s has %s", name, bad)
			}
		}
	}
	for name, css := range ours(t, ".css") {
		if strings.Contains(css, "url(") || strings.Contains(css, "@import") {
			t.Errorf("%s loads something", name)
		}
	}
	if u := read(t, "uplot/uPlot.min.css"); strings.Contains(u, "url(") {
		t.Errorf("uPlot's css loads something:\n%s", u)
	}
}

// Every file that the page names exists.
func TestFilesAreThere(t *testing.T) {
	there := func(from, name string) {
		if _, err := fs.Stat(Files(), path.Join(path.Dir(from), name)); err != nil {
			t.Errorf("%s names %s: %v", from, name, err)
		}
	}
	n := 0
	for _, m := range regexp.MustCompile(`<(?:script|link)[^>]* (?:src|href)="([^"]+)"`).FindAllStringSubmatch(read(t, "index.html"), -1) {
		there("index.html", m[1])
		n++
	}
	for name, js := range ours(t, ".js") {
		for _, m := range regexp.MustCompile(`from '([^']+)'`).FindAllStringSubmatch(js, -1) {
			there(name, m[1])
			n++
		}
	}
	if n < 20 {
		t.Errorf("only %d names were found", n)
	}
	there("", "uplot/LICENSE")
}

// Everything sent before the first view is small in total.
func TestSize(t *testing.T) {
	var sum int64
	err := fs.WalkDir(Files(), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			sum += i.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if sum > 250<<10 {
		t.Errorf("the page has %d KiB", sum>>10)
	}
}

// All text gets onto the page through dom.js, which lets through what is printable.
func TestTextGoesThroughOneFile(t *testing.T) {
	writes := regexp.MustCompile(`[\w)]+\.(?:textContent|innerText|innerHTML|outerHTML|title)\s*=[^=]|insertAdjacent|createTextNode|document\.write`)
	for name, js := range ours(t, ".js") {
		for _, w := range writes.FindAllString(js, -1) {
			if name != "js/dom.js" && !strings.HasPrefix(w, "this.title") && !strings.HasPrefix(w, "document.title") {
				t.Errorf("%s: %q: use say, attr or h of dom.js", name, w)
			}
		}
	}
	if !strings.Contains(read(t, "js/frame.js"), "filter(Boolean).map(plain).join(' · ');\n    if (document.title !== title) document.title = title;") {
		t.Error("the parts of document.title do not go through plain")
	}
}
