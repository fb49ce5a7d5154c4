package webhook

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The Python code in docs/OPERATIONS.md accepts what this package signs, and nothing
// else.
func TestPythonInTheDocs(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	doc, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(doc), "```python\nimport base64")
	code, _, closed := strings.Cut(code, "```")
	if !ok || !closed {
		t.Fatalf("no lines of Python in the docs: begun %t, ended %t", ok, closed)
	}
	code = "import base64" + code + `
import json, sys
for c in json.load(sys.stdin):
    print(genuine(c["secret"], c["headers"], c["body"].encode()))
`
	type request struct {
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	now := time.Now()
	other := "whsec_" + strings.Repeat("A", 43) + "="
	signed := func(secrets []Secret, at time.Time, body string) request {
		return request{testSecret, map[string]string{
			"webhook-id": "gpu-01.7.llama.3", "webhook-timestamp": strconv.FormatInt(at.Unix(), 10),
			"webhook-signature": sign(secrets, "gpu-01.7.llama.3", at, []byte(body)),
		}, body}
	}
	const body = `{"id":"gpu-01.7.llama.3","reason":"größer"}`
	good, ours := signed(secrets(t, testSecret), now, body), secrets(t, testSecret)
	two := signed(secrets(t, other+"\n"+testSecret), now, body)
	changed, otherID := signed(ours, now, body), signed(ours, now, body)
	changed.Body = strings.Replace(body, "llama", "lemur", 1)
	otherID.Headers["webhook-id"] = "gpu-01.7.llama.4"
	cases := []request{good, two, changed, otherID, signed(ours, now.Add(-time.Hour), body), signed(secrets(t, other), now, body)}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", code)
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(in)), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Fields(string(out)), []string{"True", "True", "False", "False", "False", "False"}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%v, want %v", got, want)
	}
}
