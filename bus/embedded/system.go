package embedded

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrNoSystem: the server runs without Config.System, so nobody gets into its
// system account.
var ErrNoSystem = errors.New("embedded: the server runs without Config.System")

var errSystemUsers = errors.New("embedded: Config.System: not together with users, tokens or operators of Config.Options")

// The two users that nats-server is told of. Nobody needs to name the first.
const (
	anybody = "anybody"
	system  = "hivebeat-system"
)

// gate lets everybody into the one account, whatever credentials they bring, as
// nats-server does without users, and the system user into the system account.
// Its password never leaves the process.
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
	// With these the server tells clients that it needs no credentials: some
	// refuse to connect without where it says that it does.
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

// SystemOptions connect to the server's system account within the process: give
// them to bus.Connect, as Config.Options. Without Config.System the connection
// fails with ErrNoSystem.
func (s *Server) SystemOptions() []nats.Option {
	if s.gate == nil {
		return []nats.Option{func(*nats.Options) error { return ErrNoSystem }}
	}
	return []nats.Option{nats.InProcessServer(s), nats.UserInfo(system, s.gate.password)}
}
