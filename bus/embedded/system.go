package embedded

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrNoSystem: the server runs without Config.System, so no connection to its system
// account is possible.
var ErrNoSystem = errors.New("embedded: the server runs without Config.System")

var errSystemUsers = errors.New("embedded: Config.System: must not be set together with users, tokens or operators in Config.Options")

// The two users that nats-server knows. No client needs to name the first.
const (
	anybody = "anybody"
	system  = "hivebeat-system"
)

// gate lets every client into the one account, with any credentials, as nats-server
// does without users. It lets the system user, whose password never leaves the process,
// into the system account.
type gate struct {
	srv      *server.Server // set before the server starts
	password string
}

func newGate(opts *server.Options) (*gate, error) {
	if len(opts.Users)+len(opts.Nkeys)+len(opts.Accounts)+len(opts.TrustedOperators)+len(opts.TrustedKeys) > 0 ||
		opts.Username != "" || opts.Authorization != "" || opts.CustomClientAuthentication != nil || opts.NoSystemAccount {
		return nil, errSystemUsers
	}
	g := &gate{password: rand.Text()}
	// With these options the server announces that it needs no credentials. Some
	// clients refuse to connect without credentials to a server that announces
	// otherwise.
	opts.Users, opts.NoAuthUser = []*User{{Username: anybody}}, anybody
	opts.CustomClientAuthentication = g
	return g, nil
}

func (g *gate) open(srv *server.Server) { g.srv = srv }

// Check implements server.Authentication.
func (g *gate) Check(c server.ClientAuthentication) bool {
	opts := c.GetOpts()
	if opts.Username != system {
		return true
	}
	if subtle.ConstantTimeCompare([]byte(opts.Password), []byte(g.password)) != 1 {
		return false
	}
	c.RegisterUser(&User{Username: system, Account: g.srv.SystemAccount()})
	return true
}

// SystemOptions returns options that connect to the server's system account within the
// process; pass them to bus.Connect as Config.Options. Without Config.System the
// connection fails with ErrNoSystem.
func (s *Server) SystemOptions() []nats.Option {
	if s.gate == nil {
		return []nats.Option{func(*nats.Options) error { return ErrNoSystem }}
	}
	return []nats.Option{nats.InProcessServer(s), nats.UserInfo(system, s.gate.password)}
}
