//go:build unix

package python_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat/bus/embedded"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

// at returns the URL of srv with other words before and in the place of its credentials.
func at(srv *embedded.Server, scheme, user string) string {
	return strings.Replace(srv.URL(), "nats://", scheme+"://"+user, 1)
}

func TestPassword(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.User("ann", nil, nil),
		bustest.User("sna:ke", []string{"hive.gpu-01.workers"}, []string{"hive.gpu-01.rollcall"}))
	heard := listen(t, bustest.Conn(t, srv, nats.UserInfo("ann", "ann")))
	p := start(t, at(srv, "nats", "sna%3Ake:sna%3Ake@"), "gpu-01", "snake", hour)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", anyBeat)
	p = start(t, srv.URL(), "gpu-01", "viper", hour+`, user="sna:ke", password="sna:ke"`)
	p.do(`w.start()`)
	heard.await(p, 0, "beat", func(b beat) bool { return b.Worker == "viper" })

	// A wrong password is logged, without it, and tried again.
	p = start(t, at(srv, "nats", "ann:secret@"), "gpu-01", "cobra", hour)
	p.do(`w.start()`)
	p.awaitLog("Authorization Violation")
	if log := p.log.String(); strings.Contains(log, "secret") {
		t.Errorf("it logs the password:\n%s", log)
	}
	// So is a subject that the user may not publish to.
	p = start(t, at(srv, "nats", "sna%3Ake:sna%3Ake@"), "gpu-02", "snake", hour)
	p.do(`w.start()`)
	p.awaitLog("Permissions Violation for Publish")
}

func TestToken(t *testing.T) {
	t.Parallel()
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) { o.Authorization = "s3cret/+" }))
	heard := listen(t, bustest.Dial(t, srv.URL(), nats.Token("s3cret/+")))
	for id, w := range map[string]*program{
		"by-url":     start(t, at(srv, "nats", "s3cret%2F%2B@"), "gpu-01", "by-url", hour),
		"by-keyword": start(t, srv.URL(), "gpu-01", "by-keyword", hour+`, token="s3cret/+"`),
	} {
		w.do(`w.start()`)
		heard.await(w, 0, "beat", func(b beat) bool { return b.Worker == id })
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, file := certificate(t)
	srv := bustest.Server(t, bustest.NoJetStream(), bustest.Configure(func(o *embedded.Options) {
		o.TLS, o.TLSConfig, o.TLSTimeout = true, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, 5
	}))
	heard := listen(t, bustest.Dial(t, srv.URL(), nats.RootCAs(file)))
	context := `, tls=__import__("ssl").create_default_context(cafile=` + strconv.Quote(file) + `)`
	p := start(t, at(srv, "tls", ""), "gpu-01", "snake", `every=0.2`+context)
	p.do(`w.start()`)
	heard.await(p, 0, "third beat", func(b beat) bool { return b.Seq == 3 })
	p.do(`assert w.stop()`)

	p = start(t, at(srv, "tls", ""), "gpu-01", "viper", hour) // which trusts only the system's authorities
	p.do(`w.start()`)
	p.awaitLog("certificate verify failed")

	plain := bustest.Server(t, bustest.NoJetStream())
	p = start(t, at(plain, "tls", "me:secret@"), "gpu-01", "cobra", hour)
	p.do(`w.start()`)
	p.awaitLog("does not offer TLS")
}

// certificate returns one for 127.0.0.1 that vouches for itself, and a file with it.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nats"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
