package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Secret is a key of Standard Webhooks: 24 to 64 bytes. It never prints its value.
type Secret struct{ key []byte }

// String hides the value.
func (Secret) String() string { return "whsec_…" }

// GoString hides the value.
func (Secret) GoString() string { return "webhook.Secret{…}" }

const (
	secretPrefix = "whsec_"
	minSecret    = 24
	maxSecret    = 64
	maxSecrets   = 4
)

// ErrSecret means that a text is no secret of Standard Webhooks.
var ErrSecret = errors.New("want whsec_ followed by the base64 of 24 to 64 bytes")

// ParseSecrets parses secrets, one per line: whsec_ and the base64 of 24 to 64 bytes,
// at most 4. Empty lines and lines that begin with # are skipped. Errors wrap
// ErrSecret, except for too many secrets, and quote nothing of the text.
func ParseSecrets(text string) ([]Secret, error) {
	var list []Secret
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		encoded, ok := strings.CutPrefix(line, secretPrefix)
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < minSecret || len(key) > maxSecret {
			return nil, fmt.Errorf("line %d: %w", n, ErrSecret)
		}
		list = append(list, Secret{key})
	}
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("it is empty: %w", ErrSecret)
	case len(list) > maxSecrets:
		return nil, fmt.Errorf("%d secrets: at most %d are used", len(list), maxSecrets)
	}
	return list, nil
}

func (s Secret) check() error {
	if len(s.key) < minSecret || len(s.key) > maxSecret {
		return ErrSecret
	}
	return nil
}

// sign returns the header webhook-signature. An id may contain dots, but the signed
// text stays unambiguous: the timestamp is digits, and the body begins with a brace.
func sign(secrets []Secret, id string, at time.Time, body []byte) string {
	var b strings.Builder
	for i, s := range secrets {
		if i > 0 {
			b.WriteByte(' ')
		}
		mac := hmac.New(sha256.New, s.key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		b.WriteString("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return b.String()
}
