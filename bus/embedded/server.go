package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Types of nats-server that a caller of Config.Options needs, so that no other package
// has to import it.
type (
	Options            = server.Options
	User               = server.User
	NkeyUser           = server.NkeyUser
	Account            = server.Account
	Permissions        = server.Permissions
	SubjectPermission  = server.SubjectPermission
	ResponsePermission = server.ResponsePermission
)

// NewAccount returns an account for Options.Accounts.
func NewAccount(name string) *Account { return server.NewAccount(name) }

// Errors of Start that callers branch on.
var (
	// ErrPortTaken: something else listens on the port.
	ErrPortTaken = errors.New("port is taken")
	// ErrStoreLocked: another server of this package uses the store directory.
	ErrStoreLocked = errors.New("store directory is in use")
	// ErrStore: the store directory cannot be made, written to, or read by JetStream.
	ErrStore = errors.New("store directory cannot be used")
	// ErrNotReady: the server did not start, for another reason.
	ErrNotReady = errors.New("server is not ready")
)

// Config describes the server to run. The zero Config is a server without JetStream on
// a random port of 127.0.0.1.
type Config struct {
	// Host is the address to listen on. Default 127.0.0.1: any client that can connect
	// can do everything, unless Options sets users.
	Host string
	// Port is the port to listen on. 0 picks a random free port. -1 does not listen at
	// all: only Connect reaches the server.
	Port int
	// JetStream turns JetStream on.
	JetStream bool
	// StoreDir is where JetStream keeps its files; Start creates it if needed. Empty
	// means a new temporary directory. Stop removes it; if the process is killed, the
	// next such Start of this user on this machine removes it. Ignored without
	// JetStream.
	StoreDir string
	// JetStreamMaxStore and JetStreamMaxMemory limit JetStream, in bytes. 0 means the
	// default of nats-server: three quarters of the disk and of the memory.
	JetStreamMaxStore  int64
	JetStreamMaxMemory int64
	// Leaf makes the server a leaf node of another NATS. A message published on one
	// side reaches subscribers on the other, and clients of this server continue to
	// work while the other side is away. nil is a standalone server.
	Leaf *Leaf
	// System lets only this process connect to the server's system account, with
	// SystemOptions, and receive an advisory there for each client that disconnects.
	// All other clients are let into the one account, as without System.
	System bool
	// Logger receives the server's errors and warnings as Error and Warn, and its
	// notices as Debug. nil discards them.
	Logger *slog.Logger
	// Options changes the server's options last, before the server is created: users,
	// max_payload, TLS. It must not set users if System is set. It may be nil.
	Options func(*Options)
}

// Server is a running nats-server. Its methods are safe for concurrent use.
type Server struct {
	cfg  Config
	srv  *server.Server
	lock *storeLock // nil without JetStream
	temp string     // the store directory to remove, or empty
	tls  bool       // clients need TLS
	gate *gate      // nil without Config.System

	leafPort int // where leaf nodes connect to, or 0

	once sync.Once
	done chan struct{} // closed when all of the server has ended
	err  error         // the error of the shutdown; read after done
}

// Start runs a server and returns when it accepts connections. ctx bounds only the
// start; the server runs until Stop. Errors wrap ErrPortTaken, ErrStoreLocked, ErrStore
// or ErrNotReady, or name the invalid field of cfg.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	cfg.Host = cmp.Or(cfg.Host, "127.0.0.1")
	if cfg.Port < -1 || cfg.Port > 65535 {
		return nil, fmt.Errorf("embedded: Config.Port: %d is not a port; 0 picks a free one, -1 does not listen", cfg.Port)
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	s := &Server{cfg: cfg, done: make(chan struct{})}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.cfg.JetStream {
		if err := s.openStore(); err != nil {
			return err
		}
	}
	opts, err := s.options()
	if err != nil {
		return err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("embedded: %w: %w", ErrNotReady, err)
	}
	if s.gate != nil {
		s.gate.open(srv)
	}
	log := &logger{log: s.cfg.Logger}
	srv.SetLoggerV2(log, false, false, false)
	s.srv, s.tls = srv, opts.TLSConfig != nil

	started := make(chan struct{})
	go func() {
		defer close(started)
		srv.Start()
	}()
	select {
	case <-started:
	case <-ctx.Done():
		// A large store can take long to read. Shutdown must not interrupt Start, so
		// wait for it.
		<-started
		s.shutdown()
		return fmt.Errorf("embedded: %w: %w", ErrNotReady, context.Cause(ctx))
	}

	// Start returns nothing, Running is true even if the port was taken, and the reason
	// goes only to the log, where logger catches it.
	if fatal := log.fatal(); fatal != nil {
		s.shutdown()
		return s.explain(fatal)
	}
	if !srv.ReadyForConnections(5 * time.Second) {
		s.shutdown()
		return fmt.Errorf("embedded: %w", ErrNotReady)
	}
	if s.cfg.JetStream && !srv.JetStreamEnabled() {
		s.shutdown()
		return fmt.Errorf("embedded: %w: JetStream did not start", ErrNotReady)
	}
	if addr, ok := srv.Addr().(*net.TCPAddr); ok {
		s.cfg.Port = addr.Port
	}
	s.leafPort = opts.LeafNode.Port // the server has put the real port there
	return nil
}

func (s *Server) options() (*server.Options, error) {
	opts := &server.Options{
		Host:                   s.cfg.Host,
		Port:                   s.cfg.Port,
		DontListen:             s.cfg.Port == -1,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
		JetStream:              s.cfg.JetStream,
		JetStreamMaxStore:      s.cfg.JetStreamMaxStore,
		JetStreamMaxMemory:     s.cfg.JetStreamMaxMemory,
		StoreDir:               s.cfg.StoreDir,
	}
	opts.Port = cmp.Or(opts.Port, server.RANDOM_PORT)
	if s.cfg.Options != nil {
		s.cfg.Options(opts)
	}
	if s.cfg.Leaf != nil {
		if err := s.cfg.Leaf.apply(opts); err != nil {
			return nil, err
		}
	}
	if s.cfg.System {
		var err error
		if s.gate, err = newGate(opts); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

// explain turns a fatal error of the server into an error that callers can branch on.
func (s *Server) explain(fatal *fatalError) error {
	switch {
	case portTaken(fatal):
		return fmt.Errorf("embedded: %w: %s", ErrPortTaken, net.JoinHostPort(s.cfg.Host, strconv.Itoa(s.cfg.Port)))
	case s.cfg.JetStream && fatal.jetStream():
		return fmt.Errorf("embedded: %w: %s: %w", ErrStore, s.cfg.StoreDir, fatal)
	}
	return fmt.Errorf("embedded: %w: %w", ErrNotReady, fatal)
}

func portTaken(err error) bool {
	const wsaeaddrinuse = syscall.Errno(10048) // Windows has its own number
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaeaddrinuse)
}

// Config returns the configuration that the server runs with. Port and StoreDir are the
// real values, so that Start with this Config after Stop makes the same server again (a
// temporary store directory is gone by then).
func (s *Server) Config() Config { return s.cfg }

// ID returns the server's id, a new one for each Start.
func (s *Server) ID() string { return s.srv.ID() }

// URL returns the address for clients on this machine, or "" if the server does not
// listen.
func (s *Server) URL() string {
	if s.cfg.Port == -1 {
		return ""
	}
	scheme := "nats"
	if s.tls {
		scheme = "tls"
	}
	host := s.cfg.Host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(s.cfg.Port))
}

// LeafURL returns the address for leaf nodes on this machine if Config.Options set a
// LeafNode.Port, else "".
func (s *Server) LeafURL() string {
	if s.leafPort == 0 {
		return ""
	}
	return "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.leafPort))
}

// Connect returns a connection to the server within the process, without a listener,
// with nats.go's defaults and opts. The caller closes it. For the defaults of an agent,
// pass nats.InProcessServer(s) to bus.Connect instead.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append([]nats.Option{nats.InProcessServer(s)}, opts...)...)
}

// InProcessConn makes Server a nats.InProcessConnProvider.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

// Done is closed when the server has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop shuts the server down and waits until it has ended completely. It is idempotent.
// If ctx ends first, Stop returns its error and the shutdown continues.
func (s *Server) Stop(ctx context.Context) error {
	s.once.Do(func() {
		go func() {
			defer close(s.done)
			s.shutdown()
			s.err = s.release()
		}()
	})
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("embedded: stop: %w", context.Cause(ctx))
	}
}

func (s *Server) shutdown() {
	s.settle()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// settle waits, for 5 s at most, until no JetStream request is in progress. On shutdown
// nats-server 2.15 stops the streams that it knows. A stream that is just being created
// is not among them yet, and its goroutines would stay forever.
func (s *Server) settle() {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		info, err := s.srv.Jsz(nil)
		if err != nil || info.Disabled || info.API.Inflight == 0 {
			return
		}
	}
}

// release releases the store directory.
func (s *Server) release() error {
	var err error
	if s.lock != nil {
		err = s.lock.release()
	}
	if s.temp != "" { // only after the release: some systems keep a file that is open
		err = errors.Join(err, os.RemoveAll(s.temp))
	}
	return err
}
