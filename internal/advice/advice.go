// Package advice says what a person can do about an error, in terms of the command line.
// The log of bus.Connect and the commands share these hints, which package bus does not
// offer to other programs.
package advice

import (
	"crypto/x509"
	"errors"

	"github.com/nats-io/nats.go"
)

// For returns one line on what a person can do about an error from NATS, or "".
func For(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the server's certificate is of an authority that is not trusted here: give that with --tls-ca"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the server's certificate is for another name: give the one it is for with --nats"
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAccountAuthExpired):
		return "the credentials have expired: put new ones into the same file, it is read again at each connect"
	case errors.Is(err, nats.ErrAuthRevoked):
		return "the credentials were revoked: ask whoever runs this NATS for new ones"
	case errors.Is(err, nats.ErrAuthorization):
		return "give the credentials that this NATS expects: in the URL, or by --creds, --nkey or --context"
	case errors.Is(err, nats.ErrPermissionViolation):
		return "this user may not do that: \"hivebeat doctor\" tells which permissions a role lacks"
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return "is NATS running, and is --nats its address? \"hivebeat up\" starts one on this machine"
	}
	return ""
}
