package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// contexts creates a configuration directory of the nats CLI with one context.
func contexts(t *testing.T, name string, keys map[string]any) (path string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	b, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(dir, "nats", "context", name+".json"), b)
}

func write(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// userKey creates an nkey: its public half, and a file with its seed.
func userKey(t *testing.T) (public, seedFile string, seed []byte) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = pair.Seed(); err != nil {
		t.Fatal(err)
	}
	return public, write(t, filepath.Join(t.TempDir(), "user.nk"), seed), seed
}

func ping(t *testing.T, cfg bus.Config) error {
	t.Helper()
	cfg.FailFast = true
	nc, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		return err
	}
	t.Cleanup(nc.Close)
	return nc.FlushTimeout(soon)
}

func TestContextCredentials(t *testing.T) {
	public, seedFile, seed := userKey(t)
	users := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		o.Users = []*embedded.User{{Username: "me", Password: "pa55word"}}
		o.Nkeys = []*embedded.NkeyUser{{Nkey: public}}
	}))
	token := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) { o.Authorization = "t0ken" }))
	t.Setenv("HIVEBEAT_TEST_SECRET", "pa55word")
	t.Setenv("HIVEBEAT_TEST_DIR", filepath.Dir(seedFile))
	data := func(b []byte) string { return "data:;base64," + base64.StdEncoding.EncodeToString(b) }

	for name, keys := range map[string]map[string]any{
		"user":          {"url": users.URL(), "user": "me", "password": "pa55word"},
		"user from env": {"url": users.URL(), "user": "me", "password": "env://HIVEBEAT_TEST_SECRET"},
		"token":         {"url": token.URL(), "token": "t0ken"},
		"nkey":          {"url": users.URL(), "nkey": seedFile},
		"nkey of a URL": {"url": users.URL(), "nkey": "file://" + seedFile},
		"nkey expanded": {"url": users.URL(), "nkey": "$HIVEBEAT_TEST_DIR/user.nk"},
		"nkey inline":   {"url": users.URL(), "nkey": data(seed)},
		"unknown keys":  {"url": users.URL(), "nkey": seedFile, "description": "x", "color_scheme": "y", "name": "z", "new": []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			path := contexts(t, "prod.eu", keys)
			if err := ping(t, bus.Config{Context: "prod.eu"}); err != nil {
				t.Errorf("by name: %v", err)
			}
			if err := ping(t, bus.Config{Context: path}); err != nil {
				t.Errorf("by path: %v", err)
			}
		})
	}

	t.Run("wrong password", func(t *testing.T) {
		contexts(t, "x", map[string]any{"url": users.URL(), "user": "me", "password": "no"})
		if err := ping(t, bus.Config{Context: "x"}); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("fields win", func(t *testing.T) {
		contexts(t, "x", map[string]any{"url": "nats://192.0.2.1:4", "user": "me", "password": "no"})
		if err := ping(t, bus.Config{Context: "x", URL: users.URL(), NKey: seedFile}); err != nil {
			t.Error(err)
		}
	})
	t.Run("inbox prefix", func(t *testing.T) {
		contexts(t, "x", map[string]any{"url": token.URL(), "token": "t0ken", "inbox_prefix": "_MINE"})
		nc := connect(t, bus.Config{Context: "x"})
		if in := nc.NewInbox(); !strings.HasPrefix(in, "_MINE.") {
			t.Errorf("inbox is %s", in)
		}
	})
	t.Run("jetstream_domain is ignored, and said so", func(t *testing.T) {
		contexts(t, "x", map[string]any{"url": token.URL(), "token": "t0ken", "jetstream_domain": "hub"})
		var l log
		connect(t, bus.Config{Context: "x", Logger: l.logger()})
		l.has(t, "jetstream_domain")
	})
}

func TestConfigErrors(t *testing.T) {
	_, seedFile, seed := userKey(t)
	dir := t.TempDir()
	junk := write(t, filepath.Join(dir, "junk"), []byte("pa55word"))
	halfCreds := write(t, filepath.Join(dir, "half.creds"),
		[]byte("-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n"))
	absent := filepath.Join(dir, "absent")
	_ = seed

	ctx := func(keys map[string]any) func(t *testing.T) bus.Config {
		return func(t *testing.T) bus.Config {
			contexts(t, "x", keys)
			return bus.Config{Context: "x"}
		}
	}
	plain := func(c bus.Config) func(t *testing.T) bus.Config {
		return func(*testing.T) bus.Config { return c }
	}
	for _, c := range []struct {
		name  string
		cfg   func(t *testing.T) bus.Config
		field string
		text  string
	}{
		{"bad URL", plain(bus.Config{URL: "nats://me:pa55/word@x"}), "URL", "percent-encoded"},
		{"creds not there", plain(bus.Config{Creds: absent}), "Creds", "absent"},
		{"creds are none", plain(bus.Config{Creds: junk}), "Creds", "no user JWT"},
		{"creds without a seed", plain(bus.Config{Creds: halfCreds}), "Creds", "no user seed"},
		{"nkey not there", plain(bus.Config{NKey: absent}), "NKey", "absent"},
		{"nkey is none", plain(bus.Config{NKey: junk}), "NKey", "no user seed"},
		{"creds and nkey", plain(bus.Config{Creds: junk, NKey: seedFile}), "NKey", "must not be set together with Creds"},
		{"cert without key", plain(bus.Config{TLSCert: junk}), "TLSCert", "TLSKey"},
		{"key without cert", plain(bus.Config{TLSKey: junk}), "TLSKey", "TLSCert"},
		{"cert is none", plain(bus.Config{TLSCert: junk, TLSKey: junk}), "TLSCert", ""},
		{"ca not there", plain(bus.Config{TLSCA: absent}), "TLSCA", "absent"},
		{"ca is none", plain(bus.Config{TLSCA: junk}), "TLSCA", "no PEM"},
		{"no such context", func(t *testing.T) bus.Config {
			contexts(t, "x", nil)
			return bus.Config{Context: "y"}
		}, "Context", `no context "y"`},
		{"name with a path", plain(bus.Config{Context: "../x"}), "Context", "neither"},
		{"not JSON", func(t *testing.T) bus.Config {
			write(t, contexts(t, "x", nil), []byte(`{"password":"pa55word"`))
			return bus.Config{Context: "x"}
		}, "Context", "not a context in JSON"},
		{"password of another type", ctx(map[string]any{"password": 1}), "Context", "not a context in JSON"},
		{"nsc", ctx(map[string]any{"nsc": "nsc://o/a/u"}), "Context", "nsc generate creds"},
		{"nsc reference", ctx(map[string]any{"creds": "nsc://o/a/u"}), "Context", "nsc:// references"},
		{"1password", ctx(map[string]any{"user": "u", "password": "op://vault/pa55"}), "Context", "op:// references"},
		{"proxy", ctx(map[string]any{"socks_proxy": "socks5://x"}), "Context", "socks_proxy"},
		{"windows store", ctx(map[string]any{"windows_cert_store": "user"}), "Context", "windows_cert_store"},
		{"context's URL", ctx(map[string]any{"url": "nats://me:pa55/word@x"}), "Context", "percent-encoded"},
		{"context's creds", ctx(map[string]any{"creds": absent}), "Context", "absent"},
		{"context's nkey", ctx(map[string]any{"nkey": "data:;base64,pa55"}), "Context", "no user seed"},
		{"context's data", ctx(map[string]any{"token": "data:,pa55"}), "Context", "base64"},
		{"context's env", ctx(map[string]any{"token": "env://HIVEBEAT_TEST_UNSET"}), "Context", "HIVEBEAT_TEST_UNSET"},
		{"context's ca", ctx(map[string]any{"ca": absent}), "Context", "absent"},
		{"context's cert", ctx(map[string]any{"cert": absent, "key": absent}), "Context", "absent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, err := bus.Connect(t.Context(), c.cfg(t))
			if err == nil {
				nc.Close()
				t.Fatal("no error")
			}
			bad, ok := errors.AsType[*bus.ConfigError](err)
			if !ok || bad.Field != c.field || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want Config.%s … %s", err, c.field, c.text)
			}
			secret(t, err.Error())
		})
	}
}

func TestCreds(t *testing.T) {
	_, _, seed := userKey(t)
	creds := write(t, filepath.Join(t.TempDir(), "me.creds"), []byte(
		"-----BEGIN NATS USER JWT-----\nh.p.s\n------END NATS USER JWT------\n\n"+
			"-----BEGIN USER NKEY SEED-----\n"+string(seed)+"\n------END USER NKEY SEED------\n"))
	srv := bustest.Server(t, bustest.NoListen())
	check := func(t *testing.T, cfg bus.Config) {
		t.Helper()
		cfg.Options = []nats.Option{nats.InProcessServer(srv)}
		nc := connect(t, cfg)
		if nc.Opts.UserJWT == nil {
			t.Fatal("no JWT is sent")
		}
		if jwt, err := nc.Opts.UserJWT(); err != nil || jwt != "h.p.s" {
			t.Errorf("sends %q, %v", jwt, err)
		}
	}
	check(t, bus.Config{Creds: creds})
	contexts(t, "x", map[string]any{"creds": creds})
	check(t, bus.Config{Context: "x"})
	contexts(t, "x", map[string]any{"user_jwt": "h.p.s", "user_seed": string(seed)})
	check(t, bus.Config{Context: "x"})
}

// pki creates an authority, and a certificate from it for 127.0.0.1.
func pki(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, kind string, b []byte) string {
		return write(t, filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	sign := func(c, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = k
		}
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		b, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return b, k
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, rootKey := sign(root, root, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	leafDER, leafKey := sign(leaf, root, rootKey)
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return file("ca.pem", "CERTIFICATE", rootDER), file("cert.pem", "CERTIFICATE", leafDER), file("key.pem", "EC PRIVATE KEY", keyDER)
}

func TestTLS(t *testing.T) {
	ca, cert, key := pki(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pemCA, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(pemCA)
	first := false
	server := func(t *testing.T) *embedded.Server {
		return bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
			o.TLSConfig = &tls.Config{
				Certificates: []tls.Certificate{pair}, ClientCAs: pool,
				ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
			}
			o.TLSTimeout = 10
			o.TLSHandshakeFirst = first
		}))
	}
	srv := server(t)
	if !strings.HasPrefix(srv.URL(), "tls://") {
		t.Errorf("URL is %s", srv.URL())
	}
	if err := ping(t, bus.Config{URL: srv.URL(), TLSCA: ca, TLSCert: cert, TLSKey: key}); err != nil {
		t.Errorf("with all: %v", err)
	}
	if err := ping(t, bus.Config{URL: srv.URL(), TLSCert: cert, TLSKey: key}); err == nil {
		t.Error("connected to a server of an unknown authority")
	}
	if err := ping(t, bus.Config{URL: srv.URL(), TLSCA: ca}); err == nil {
		t.Error("connected without a certificate")
	}
	t.Run("context", func(t *testing.T) {
		first = true
		srv := server(t)
		keys := map[string]any{"url": srv.URL(), "ca": ca, "cert": cert, "key": key, "tls_first": true}
		contexts(t, "x", keys)
		if err := ping(t, bus.Config{Context: "x"}); err != nil {
			t.Error(err)
		}
	})
	// A failing handshake is logged, not silently tried forever.
	t.Run("log", func(t *testing.T) {
		var l log
		connect(t, bus.Config{URL: srv.URL(), TLSCert: cert, TLSKey: key, Logger: l.logger()})
		l.has(t, "certificate")
		l.has(t, "--tls-ca")
	})
}
