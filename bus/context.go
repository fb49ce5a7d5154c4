package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
)

// dial is a resolved Config: where to connect, and with which credentials.
type dial struct {
	url   string
	shown string // url without passwords, for people
	opts  []nats.Option

	ignored []string // keys of the context that only JetStream tools need
}

// cliContext is the file of a context of the nats CLI (v0.5): the keys that a
// connection needs, and those that would change it in a way that this package does not
// support.
type cliContext struct {
	URL         string `json:"url"`
	Token       string `json:"token"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Creds       string `json:"creds"`
	NKey        string `json:"nkey"`
	UserJWT     string `json:"user_jwt"`
	UserSeed    string `json:"user_seed"`
	Cert        string `json:"cert"`
	Key         string `json:"key"`
	CA          string `json:"ca"`
	InboxPrefix string `json:"inbox_prefix"`
	TLSFirst    bool   `json:"tls_first"`

	NSC          string `json:"nsc"`
	SocksProxy   string `json:"socks_proxy"`
	WinCertStore string `json:"windows_cert_store"`
	JSDomain     string `json:"jetstream_domain"`
	JSAPIPrefix  string `json:"jetstream_api_prefix"`
}

// dial resolves c and checks what can be checked without NATS, so that a wrong file
// name is an error at once and not a connection that never succeeds.
func (c Config) dial() (dial, error) {
	bad := func(field string, err error) (dial, error) {
		return dial{}, &ConfigError{Field: field, Err: err}
	}
	var file cliContext
	if c.Context != "" {
		var err error
		if file, err = loadContext(c.Context); err != nil {
			return bad("Context", err)
		}
	}
	var d dial
	var err error
	switch {
	case c.URL != "":
		if d.url, d.shown, err = parseURLs(c.URL); err != nil {
			return bad("URL", err)
		}
	case file.URL != "":
		if d.url, d.shown, err = parseURLs(file.URL); err != nil {
			return bad("Context", fmt.Errorf("%s: url: %w", c.Context, err))
		}
	default:
		d.url, d.shown = nats.DefaultURL, nats.DefaultURL
	}

	switch {
	case c.Creds != "" && c.NKey != "":
		return bad("NKey", errors.New("must not be set together with Creds"))
	case c.Creds != "":
		o, err := credsFile(c.Creds)
		if err != nil {
			return bad("Creds", err)
		}
		d.opts = append(d.opts, o)
	case c.NKey != "":
		o, err := nkeyFile(c.NKey)
		if err != nil {
			return bad("NKey", err)
		}
		d.opts = append(d.opts, o)
	default:
		o, err := file.credentials()
		if err != nil {
			return bad("Context", fmt.Errorf("%s: %w", c.Context, err))
		}
		d.opts = append(d.opts, o...)
	}

	switch {
	case c.TLSCert != "" && c.TLSKey == "":
		return bad("TLSCert", errors.New("needs TLSKey as well"))
	case c.TLSKey != "" && c.TLSCert == "":
		return bad("TLSKey", errors.New("needs TLSCert as well"))
	case c.TLSCert != "":
		o, err := certFiles(c.TLSCert, c.TLSKey)
		if err != nil {
			return bad("TLSCert", err)
		}
		d.opts = append(d.opts, o)
	case file.Cert != "" && file.Key != "":
		o, err := certFiles(file.Cert, file.Key)
		if err != nil {
			return bad("Context", fmt.Errorf("%s: cert: %w", c.Context, err))
		}
		d.opts = append(d.opts, o)
	}
	switch {
	case c.TLSCA != "":
		o, err := caFile(c.TLSCA)
		if err != nil {
			return bad("TLSCA", err)
		}
		d.opts = append(d.opts, o)
	case file.CA != "":
		o, err := caFile(file.CA)
		if err != nil {
			return bad("Context", fmt.Errorf("%s: ca: %w", c.Context, err))
		}
		d.opts = append(d.opts, o)
	}

	if file.InboxPrefix != "" {
		d.opts = append(d.opts, nats.CustomInboxPrefix(file.InboxPrefix))
	}
	if file.TLSFirst {
		d.opts = append(d.opts, nats.TLSHandshakeFirst())
	}
	if file.JSDomain != "" {
		d.ignored = append(d.ignored, "jetstream_domain")
	}
	if file.JSAPIPrefix != "" {
		d.ignored = append(d.ignored, "jetstream_api_prefix")
	}
	return d, nil
}

// loadContext reads the context as the nats CLI does: by name from its directory, or by
// path if the name ends in .json and the file exists.
func loadContext(name string) (cliContext, error) {
	var c cliContext
	path, err := contextPath(name)
	if err != nil {
		return c, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("the nats CLI has no context %q: %w", name, err)
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s is not a context in JSON", path) // the error could quote a password
	}
	if err := c.supported(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	for _, p := range []*string{&c.Creds, &c.NKey, &c.Cert, &c.Key, &c.CA} {
		*p = expandPath(*p)
	}
	return c, nil
}

func contextPath(name string) (string, error) {
	if strings.HasSuffix(name, ".json") {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	if strings.Contains(name, "..") || strings.ContainsAny(name, `/\`) {
		return "", fmt.Errorf("%q is neither the name of a context nor an existing file", name)
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := homeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "nats", "context", name+".json"), nil
}

// homeDir consults the user database before $HOME, as the nats CLI does, so that both
// find the same file.
func homeDir() (string, error) {
	if u, err := user.Current(); err == nil && u.HomeDir != "" {
		return u.HomeDir, nil
	}
	return os.UserHomeDir()
}

// expandPath expands $VAR and a leading ~ in a path of a context. A reference to
// something other than a file is returned unchanged.
func expandPath(p string) string {
	if isReference(p) {
		return p
	}
	p = os.ExpandEnv(strings.TrimPrefix(p, "file://"))
	if rest, ok := strings.CutPrefix(p, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) {
		if home, err := homeDir(); err == nil {
			return home + rest
		}
	}
	return p
}

// supported returns an error for a key that the nats CLI supports and this package does
// not. Ignoring such a key would connect with other credentials, or to another server.
func (c *cliContext) supported() error {
	for _, v := range []struct{ key, value, instead string }{
		{"nsc", c.NSC, "create a credentials file with nsc generate creds and use that"},
		{"socks_proxy", c.SocksProxy, "connect without a proxy, or through one for TCP"},
		{"windows_cert_store", c.WinCertStore, "use PEM files for the certificate"},
	} {
		if v.value != "" {
			return fmt.Errorf("key %q is not supported: %s", v.key, v.instead)
		}
	}
	for key, value := range map[string]string{
		"creds": c.Creds, "nkey": c.NKey, "user_jwt": c.UserJWT, "user_seed": c.UserSeed, "password": c.Password,
		"token": c.Token, "cert": c.Cert, "key": c.Key, "ca": c.CA,
	} {
		for _, scheme := range []string{"nsc://", "op://"} {
			if strings.HasPrefix(strings.ToLower(value), scheme) {
				return fmt.Errorf("key %q: %s references are not supported: use a file", key, scheme)
			}
		}
	}
	return nil
}

// credentials returns the credentials in the context, in the CLI's order of precedence.
func (c *cliContext) credentials() ([]nats.Option, error) {
	var opts []nats.Option
	text := func(key, value string) (string, error) {
		if !isReference(value) {
			return value, nil
		}
		b, err := resolve(value)
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	switch {
	case c.User != "":
		password, err := text("password", c.Password)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.UserInfo(c.User, password))
	case c.Creds != "":
		o, err := credsOf(c.Creds)
		if err != nil {
			return nil, fmt.Errorf("creds: %w", err)
		}
		opts = append(opts, o)
	case c.NKey != "":
		o, err := nkeyOf(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		opts = append(opts, o)
	case c.UserJWT != "":
		jwt, err := text("user_jwt", c.UserJWT)
		if err != nil {
			return nil, err
		}
		seed, err := text("user_seed", c.UserSeed)
		if err != nil {
			return nil, err
		}
		if seed != "" {
			opts = append(opts, nats.UserJWTAndSeed(jwt, seed))
			break
		}
		opts = append(opts, nats.UserJWT(
			func() (string, error) { return jwt, nil },
			func([]byte) ([]byte, error) { return nil, nil })) // a bearer token needs no signature
	}
	if c.Token != "" {
		token, err := text("token", c.Token)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Token(token))
	}
	return opts, nil
}
