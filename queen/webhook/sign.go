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

// Secret is a key of Standard Webhooks: 24 to 64 bytes. It shows itself to nobody.
type Secret struct{ key []byte }

// String hides it.
func (Secret) String() string { return "whsec_…" }

// GoString hides it.
func (Secret) GoString() string { return "webhook.Secret{…}" }

const (
	secretPrefix = "whsec_"
	minSecret    = 24
	maxSecret    = 64
	maxSecrets   = 4
)

// ErrSecret: a text is no secret of Standard Webhooks.
var ErrSecret = errors.New("not whsec_ and the base64 of 24 to 64 bytes")

// ParseSecrets reads secrets, one a line: whsec_ and the base64 of 24 to 64 bytes,
// at most 4. Empty lines and such as begin with # are skipped. Errors wrap ErrSecret
// and quote nothing.
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

// sign returns the header webhook-signature. An id may hold dots, but neither the
// timestamp nor the beginning of the body can be taken for another: one is digits,
// the other a brace.
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
