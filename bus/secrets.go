package bus

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// parseURLs checks a list of server URLs. shown is the same list without users and
// passwords. No error quotes anything that could be a password.
func parseURLs(list string) (urls, shown string, err error) {
	var all, show []string
	for s := range strings.SplitSeq(list, ",") {
		s = strings.TrimSpace(s)
		if s == "" {
			continue
		}
		all = append(all, s)
		if !strings.Contains(s, "://") {
			s = "nats://" + s
		}
		u, err := url.Parse(s)
		if err != nil {
			return "", "", badURL(s, err)
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return "", "", fmt.Errorf("scheme %q is not nats, tls, ws or wss", u.Scheme)
		}
		// A / or # in a password ends the host early; the rest of the password follows
		// it.
		if strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
			return "", "", badURL(s, nil)
		}
		if u.Hostname() == "" {
			return "", "", badURL(s, errors.New("no host"))
		}
		show = append(show, u.Scheme+"://"+u.Host)
	}
	if len(all) == 0 {
		return "", "", errors.New("no URL")
	}
	return strings.Join(all, ","), strings.Join(show, ","), nil
}

// badURL omits the URL and the parser's message if an @ indicates that there are
// credentials: both may quote them.
func badURL(s string, err error) error {
	if strings.Contains(s, "@") {
		return errors.New("not a valid URL (not shown: it holds credentials; in those, any of :/?#[]@% must be percent-encoded)")
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%q is not a valid URL: %w", s, err)
}

// isReference reports whether a value in a context refers to a value stored elsewhere.
func isReference(value string) bool {
	return strings.HasPrefix(value, "env://") || strings.HasPrefix(value, "data:")
}

// resolve returns the value that a reference refers to. Its errors do not quote it.
func resolve(ref string) ([]byte, error) {
	if name, ok := strings.CutPrefix(ref, "env://"); ok {
		v := os.Getenv(name)
		if v == "" {
			return nil, fmt.Errorf("environment variable %q is not set", name)
		}
		return []byte(v), nil
	}
	head, data, ok := strings.Cut(strings.TrimPrefix(ref, "data:"), ",")
	if !ok || !strings.HasSuffix(head, ";base64") {
		return nil, errors.New("a data: reference must be data:;base64,…")
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, errors.New("the data: reference is not base64")
	}
	return b, nil
}

// credsFile reads a credentials file once, to report a bad one immediately. nats.go
// reads it again at each connect.
func credsFile(path string) (nats.Option, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkCreds(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nats.UserCredentials(path), nil
}

func credsOf(ref string) (nats.Option, error) {
	if !isReference(ref) {
		return credsFile(ref)
	}
	b, err := resolve(ref)
	if err != nil {
		return nil, err
	}
	if err := checkCreds(b); err != nil {
		return nil, err
	}
	return nats.UserCredentialBytes(b), nil
}

func checkCreds(b []byte) error {
	// ParseDecoratedJWT accepts any text as a JWT.
	if jwt, err := nkeys.ParseDecoratedJWT(b); err != nil || strings.Count(jwt, ".") != 2 {
		return errors.New("contains no user JWT")
	}
	pair, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return errors.New("contains no user seed")
	}
	pair.Wipe()
	return nil
}

func nkeyFile(path string) (nats.Option, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	o, err := nats.NkeyOptionFromSeed(path)
	if err != nil {
		return nil, fmt.Errorf("%s: contains no user seed", path)
	}
	return o, nil
}

func nkeyOf(ref string) (nats.Option, error) {
	if !isReference(ref) {
		return nkeyFile(ref)
	}
	b, err := resolve(ref)
	if err != nil {
		return nil, err
	}
	pair, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return nil, errors.New("contains no user seed")
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	return nats.Nkey(public, pair.Sign), nil
}

func caFile(path string) (nats.Option, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: contains no PEM certificate", path)
	}
	return nats.RootCAs(path), nil
}

func certFiles(cert, key string) (nats.Option, error) {
	if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
		return nil, err
	}
	return nats.ClientCert(cert, key), nil
}
