package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/bus"
	"github.com/beatfabric/hivebeat/internal/bustest"
	"github.com/beatfabric/hivebeat/internal/plaintext/plaintexttest"
	"github.com/beatfabric/hivebeat/internal/sim"
	"github.com/beatfabric/hivebeat/internal/top"
	"github.com/beatfabric/hivebeat/queen/api"
)

// hostileNATS is where a command of TestTextIsOnlyText finds hostile text.
type hostileNATS struct {
	queen  string     // URL of a NATS whose queen answers with hostile text
	events *nats.Conn // publishes there
	server string     // URL of a server that is hostile itself
	angry  string     // URL of one that refuses every connection
}

// hostileCommand runs one command. format holds the flags that choose how it prints.
// It returns everything that the command wrote.
type hostileCommand func(t *testing.T, n hostileNATS, format []string) string

// oneShot runs a command several times, with different arguments.
func oneShot(lines ...string) hostileCommand {
	return func(t *testing.T, n hostileNATS, format []string) string {
		var all strings.Builder
		for _, line := range lines {
			args := append(strings.Fields(line), "--nats", n.queen, "--timeout", "10s")
			_, out, errs := run(t, nil, append(args, format...)...)
			plaintexttest.Check(t, line, out+errs)
			all.WriteString(out)
		}
		return all.String()
	}
}

// agent runs a role until it has logged hostile text.
func agent(args ...string) hostileCommand {
	return func(t *testing.T, n hostileNATS, format []string) string {
		_, errs := runUntil(t, func(_, errs string) bool { return strings.Contains(errs, plaintexttest.Mark) },
			slices.Concat(args, []string{"--nats", n.server, "--log-level", "debug"}, format))
		return checkLog(t, format, errs)
	}
}

// checkLog checks a log in JSON, and returns it.
func checkLog(t *testing.T, format []string, log string) string {
	t.Helper()
	if slices.Contains(format, "json") {
		for line := range strings.Lines(log) {
			if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) { // others are last words
				t.Errorf("no JSON: %q", line)
			}
		}
	}
	return log
}

// runUntil runs a command until enough returns true. It calls enough repeatedly with the
// output so far.
func runUntil(t *testing.T, enough func(out, errs string) bool, args []string) (out, errs string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, stderr, ended := new(bustest.Log), new(bustest.Log), make(chan int, 1)
	go func() {
		ended <- Main(ctx, args, Streams{In: strings.NewReader(""), Out: stdout, Err: stderr, Exit: func(int) { t.Error("left at once") }})
	}()
	bustest.Eventually(t, 60*time.Second, func() (bool, string) {
		return enough(stdout.String(), stderr.String()), fmt.Sprintf("%q, %q", stdout.String(), stderr.String())
	})
	cancel()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("%v does not end: %q", args, stderr.String())
	}
	return stdout.String(), stderr.String()
}

// hostileCommands has an entry for every command of hivebeat. Each entry brings hostile
// text to its command.
func hostileCommands() map[string]hostileCommand {
	return map[string]hostileCommand{
		"up": func(t *testing.T, _ hostileNATS, format []string) string {
			t.Setenv("TMPDIR", t.TempDir())
			dir := filepath.Join(t.TempDir(), plaintexttest.Mark+"\x1b[35m\u009b\u202e")
			quarrelled := false
			out, errs := runUntil(t, func(out, errs string) bool {
				addr := regexp.MustCompile(`with JetStream on nats://(\S+), a queen`).FindStringSubmatch(out)
				quarrelled = quarrelled || addr != nil && quarrel(t, addr[1]) // a client whose name and command the server logs
				return quarrelled && strings.Contains(errs, plaintexttest.Mark)
			}, slices.Concat([]string{"up", "--id", "h", "--store", dir, "--port", "0", "--http", "off", "--metrics", "off", "--log-level", "debug"}, format))
			return out + checkLog(t, format, errs)
		},
		"worker": agent("worker", "--hive", "h", "--id", "w", "--model", plaintexttest.Mark+"\u009b", "--metrics", "off"),
		"hive":   agent("hive", "--id", "h", "--metrics", "off"),
		"queen":  agent("queen", "--no-jetstream", "--http", "off"),
		"ls":     oneShot("ls", "ls hives", "ls workers"),
		"get":    oneShot("get h", "get h/w"),
		"events": oneShot("events"),
		"pick":   oneShot("pick -n 3", "pick --for gpu", "pick --hold x", "pick --release x"),
		"wait": func(t *testing.T, n hostileNATS, format []string) string { // it prints numbers only
			_, out, errs := run(t, nil, append([]string{"wait", "--nats", n.queen, "--ready", "100", "--timeout", "200ms"}, format...)...)
			plaintexttest.Check(t, "wait", plaintexttest.Mark+out+errs)
			return plaintexttest.Mark
		},
		"sidecar": func(t *testing.T, n hostileNATS, format []string) string {
			file := filepath.Join(t.TempDir(), plaintexttest.Mark+"\x1b[35m\u009b.yaml")
			if err := os.WriteFile(file, []byte("engines:\n  - id: a\n    model: \""+plaintexttest.Mark+"\\u009b\"\n    probe: {url: 'http://127.0.0.1:1'}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return agent("sidecar", "--hive", "h", "--config", file)(t, n, format)
		},
		"forget": oneShot("forget h", "forget h/0", "forget h/"+plaintexttest.Mark),
		"drain":  oneShot("drain h", "drain h/w"), "undrain": oneShot("undrain h", "undrain h/w"),
		"silence": oneShot("silence h --for 1h"), "unsilence": oneShot("unsilence h/w"),
		"watch": func(t *testing.T, n hostileNATS, format []string) string {
			if slices.Contains(format, "text") {
				term, stop := startWatch(t, n.queen)
				awaitScreen(t, term, plaintexttest.Mark)
				tellHostile(t, n.events)
				awaitScreen(t, term, `12:00:00 .*`+plaintexttest.Mark)
				if err := stop(); err != nil {
					t.Error(err)
				}
				plaintexttest.Check(t, "watch in a terminal", term.all())
			}
			out, errs := runUntil(t, func(out, errs string) bool {
				tellHostile(t, n.events) // until it has subscribed
				return strings.Contains(out, plaintexttest.Mark) && strings.Contains(errs, plaintexttest.Mark)
			}, slices.Concat([]string{"watch", "--nats", n.queen, "--timeout", "10s"}, format))
			plaintexttest.Check(t, "warnings", errs)
			return out
		},
		"top": hostileTop,
		"decode": func(t *testing.T, _ hostileNATS, format []string) string {
			b := hivebeat.Beat{V: hivebeat.Version, Hive: "h", Worker: plaintexttest.Evil}
			plaintexttest.Fill(&b.Facts)
			in, err := bus.Encode(map[string]any{"worker": plaintexttest.Evil, plaintexttest.Evil: []any{b, []byte(plaintexttest.Evil)}})
			if err != nil {
				t.Fatal(err)
			}
			_, out, errs := run(t, in, append([]string{"decode"}, format...)...)
			plaintexttest.CheckJSON(t, "decode", out)
			_, pretty, _ := run(t, in, append([]string{"decode", "--pretty"}, format...)...)
			plaintexttest.CheckJSON(t, "decode --pretty", pretty)
			return out + pretty + errs
		},
		"doctor": func(t *testing.T, n hostileNATS, format []string) string {
			_, out, errs := run(t, nil, append([]string{"doctor", "--nats", n.angry, "--timeout", "10s"}, format...)...)
			return out + errs
		},
		"sim": func(t *testing.T, _ hostileNATS, format []string) string {
			p := sim.Generate(1, time.Minute, 0)
			p.Why = plaintexttest.Evil
			file := filepath.Join(t.TempDir(), plaintexttest.Mark+"\x1b[35m\u009b\u202e.json")
			_, _, errs := run(t, nil, append([]string{"sim", "--plan", file}, format...)...)
			plaintexttest.Check(t, "sim without its plan", errs)
			if err := sim.WritePlan(file, p); err != nil {
				t.Fatal(err)
			}
			_, out, errs := run(t, nil, append([]string{"sim", "--plan", file, "-v"}, format...)...)
			if slices.Contains(format, "text") {
				return out + errs + plaintexttest.Mark // it shows nothing of the text
			}
			return out
		},
		"version": func(t *testing.T, _ hostileNATS, format []string) string {
			code, out, errs := run(t, nil, append([]string{"version"}, format...)...)
			if code != ExitDone {
				t.Error(errs)
			}
			return out
		},
	}
}

// Nothing that a command prints or logs, in any format, makes a terminal do anything but
// show text, whatever queens, workers, hives, servers and files say. JSON decodes to the
// very text.
func TestTextIsOnlyText(t *testing.T) {
	n := hostileNATS{queen: serveHostile(t), server: hostileServer(t, false), angry: hostileServer(t, true)}
	nc, err := nats.Connect(n.queen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	n.events = nc

	var bad *badValue
	parser, err := newConsole(Streams{Out: io.Discard, Err: io.Discard}).parser(t.Context(), &bad)
	if err != nil {
		t.Fatal(err)
	}
	known := hostileCommands()
	for _, node := range parser.Model.Leaves(false) {
		name := node.Path()
		drive, ok := known[name]
		if !ok {
			t.Errorf("%s is a new command: add it to hostileCommands, with an entry that brings hostile text to it", name)
			continue
		}
		delete(known, name)
		for _, format := range formats(node) {
			t.Run(strings.Join(append([]string{name}, format...), " "), func(t *testing.T) {
				out := drive(t, n, format)
				switch {
				case name == "version":
					plaintexttest.Printable(t, name, out)
				case slices.Contains(format, "json") && !slices.Contains(format, "--log-format"):
					plaintexttest.CheckJSON(t, name, out)
				default:
					plaintexttest.Check(t, name, out)
				}
			})
		}
	}
	if len(known) > 0 {
		t.Errorf("no such command: %v", slices.Sorted(maps.Keys(known)))
	}
}

// formats returns every combination of values of the flags for output, colour and log
// format. A new flag of this kind must be added here.
func formats(node *kong.Node) [][]string {
	all := [][]string{nil}
	for _, f := range node.Flags {
		if f.Name != "output" && f.Name != "color" && f.Name != "log-format" {
			continue
		}
		var more [][]string
		for _, value := range f.EnumSlice() {
			if value == "auto" { // no terminal: as never
				continue
			}
			for _, format := range all {
				more = append(more, append(slices.Clone(format), "--"+f.Name, value))
			}
		}
		all = more
	}
	return all
}

// serveHostile is a NATS with a queen whose answers hold hostile text wherever text may be.
func serveHostile(t *testing.T) (url string) {
	t.Helper()
	srv := bustest.Server(t, bustest.NoJetStream())
	nc := bustest.Conn(t, srv)
	var s hivebeat.Subjects
	subscribeAs(t, nc, "q", func(m *nats.Msg) {
		_, verb, _, _ := s.ParseAPI(m.Subject)
		b, _ := json.Marshal(hostileAnswer(verb)) // not as a queen encodes it
		_ = m.Respond(b)
	})
	return srv.URL()
}

func hostileAnswer(verb string) *api.Answer {
	a := new(api.Answer)
	plaintexttest.Fill(a)
	a.Error, a.Next, a.Resync, a.More, a.Gone = nil, "", "", false, nil
	for i := range a.Hives { // an index for forget
		for k := range a.Hives[i].GPUs {
			a.Hives[i].GPUs[k].Index = uint64(k)
		}
	}
	a.Status.Warm = true
	switch verb {
	case api.VerbHive, api.VerbForget:
		a.Hives = a.Hives[:1]
	case api.VerbWorker:
		a.Workers = a.Workers[:1]
	}
	return a
}

// tellHostile publishes hostile events, and some that are none.
func tellHostile(t *testing.T, nc *nats.Conn) {
	t.Helper()
	var s hivebeat.Subjects
	e := new(hivebeat.Event)
	plaintexttest.Fill(e)
	for i := range 3 {
		e.ID = strconv.Itoa(i) + plaintexttest.Evil
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			b = bytes.ReplaceAll(b, []byte(plaintexttest.Mark), []byte(plaintexttest.Mark+"\xff\x9b")) // no UTF-8
		}
		if err := nc.Publish(s.Event("h", "w", hivebeat.KindLost), b); err != nil {
			t.Fatal(err)
		}
		e.Data.Kind = hivebeat.KindLost
	}
	if err := nc.Publish("queen.events."+plaintexttest.Mark+"\u009b\u202e.x.y", []byte("no event \x1b[35m\u009b")); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// hostileServer is a NATS server that is hostile itself: its name, and its errors. It
// answers nothing but the ping, and that with an error if it is angry.
func hostileServer(t *testing.T, angry bool) (url string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	name, err := json.Marshal(plaintexttest.Evil)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(plaintexttest.Evil, "\r")
	serve := func(c net.Conn) {
		defer c.Close()
		fmt.Fprintf(c, "INFO {\"server_id\":\"X\",\"server_name\":%s,\"version\":\"2.11.2\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n", name)
		told := false
		for in := bufio.NewScanner(c); in.Scan(); {
			switch {
			case in.Text() == "PING" && angry:
				fmt.Fprintf(c, "-ERR '%s'\r\n", line)
			case in.Text() == "PING":
				fmt.Fprint(c, "PONG\r\n")
			case strings.HasPrefix(in.Text(), "SUB ") && !told:
				told = true
				fmt.Fprintf(c, "-ERR 'Permissions Violation for Subscription to \"%s\"'\r\n", line)
			}
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return "nats://" + ln.Addr().String()
}

// quarrel connects to a NATS server under a hostile name, and says what the server logs.
func quarrel(t *testing.T, addr string) bool {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return false
	}
	t.Cleanup(func() { _ = c.Close() })
	name, _ := json.Marshal(plaintexttest.Evil)
	fmt.Fprintf(c, "CONNECT {\"verbose\":false,\"name\":%s}\r\n%s\x1b[35m\u009b\u202e nonsense\r\n", name, plaintexttest.Mark)
	_, _ = io.Copy(io.Discard, c) // until the server has had enough
	return true
}

// hostileTop runs top on a pipe in place of a terminal, through all of its views.
func hostileTop(t *testing.T, n hostileNATS, format []string) string {
	in, keys, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer keys.Close()
	out := new(tty)
	cmd := &topCmd{AskerFlags: AskerFlags{ConnFlags: ConnFlags{NATS: n.queen}}, ColorFlag: ColorFlag{format[len(format)-1]}, Timeout: 10 * time.Second, What: "hives"}
	a, err := cmd.newAsker(n.events, cmd.Timeout)
	if err != nil {
		t.Fatal(err)
	}
	m, err := cmd.model(plaintexttest.Evil, newConsole(Streams{Out: out}))
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{messages: make(chan *nats.Msg, eventsAhead)}
	if f.sub, err = n.events.ChanSubscribe("queen.events.>", f.messages); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- top.Run(ctx, m, top.Queen{Ask: a.view().ask, Events: f.next}, top.Terminal{In: in, Out: out, Width: 200, Height: 40})
	}()
	press := func(key, want string) {
		t.Helper()
		from := len(out.all())
		if _, err := keys.WriteString(key); err != nil {
			t.Fatal(err)
		}
		bustest.Eventually(t, 30*time.Second, func() (bool, string) {
			s := out.all()[from:]
			return strings.Contains(s, want), fmt.Sprintf("after %q, waiting for %q: %q", key, want, s)
		})
	}
	press("", plaintexttest.Mark)
	press("2", "WORKER")
	tellHostile(t, n.events)
	press("3", "12:00:00")
	press("1", "HIVE")
	press("\r", plaintexttest.Mark)
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("top does not end")
	}
	drawn := out.all()
	if i := strings.Index(drawn, "\x1b[35m"); i >= 0 {
		t.Errorf("a colour of the text: %q", drawn[max(0, i-60):i+20])
	}
	return moves.ReplaceAllString(drawn, "")
}

// moves are the codes with which Bubble Tea draws a frame over another.
var moves = regexp.MustCompile(`\x1bM|\x1b\[[<=>?]?[0-9;]*\$?[A-Za-z]|[\r\x08\t]`)

// The log of every role goes through the logger of the console.
func TestLogIsOnlyText(t *testing.T) {
	type odd struct{ Text string }
	for name, tt := range map[string]struct {
		format string
		term   int
	}{"text": {"text", -1}, "terminal": {"text", 0}, "json": {"json", -1}} {
		t.Run(name, func(t *testing.T) {
			var errs bytes.Buffer
			c := newConsole(Streams{Err: &errs})
			c.errTerm = tt.term
			const evil = plaintexttest.Evil
			log := c.logger(LogFlags{LogLevel: "debug", LogFormat: tt.format})
			log.Info(evil)
			log.With(slog.String("k", evil)).WithGroup("g").Warn("m", slog.Any("err", errors.New(evil)), slog.String(evil, "v"), slog.Int(evil, 1))
			log.Error("m", slog.Any("struct", odd{evil}), slog.Any("list", []string{evil}), slog.Any("map", map[string]string{evil: evil}),
				slog.Any("bytes", []byte(evil)), slog.Group("group", slog.String("k", evil)), slog.Any("valuer", valuer{}), slog.Any("nil", error(nil)))
			slog.NewLogLogger(log.Handler(), slog.LevelWarn).Print(evil)
			for line := range strings.Lines(errs.String()) {
				if tt.format == "json" {
					plaintexttest.CheckJSON(t, name, line)
				} else {
					plaintexttest.Check(t, name, line)
				}
			}
			if n := strings.Count(errs.String(), "\n"); n != 4 {
				t.Errorf("%d lines of 4 records: %q", n, errs.String())
			}
		})
	}
}

type valuer struct{}

func (valuer) LogValue() slog.Value {
	return slog.GroupValue(slog.Any("k", errors.New(plaintexttest.Evil)))
}
