package webhook

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/bustest"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func secrets(t testing.TB, text string) []Secret {
	t.Helper()
	s, err := ParseSecrets(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The vector comes from the libraries of Standard Webhooks.
func TestSign(t *testing.T) {
	at := time.Unix(1614265330, 0)
	body := []byte(`{"test": 2432232314}`)
	const want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	if got := sign(secrets(t, testSecret), "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	other := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	both := strings.Fields(sign(secrets(t, "# the new one\n"+other+"\n\n"+testSecret+"\n"), "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body))
	if len(both) != 2 || both[1] != want || both[0] == want {
		t.Errorf("two secrets: %v", both)
	}
}

func TestSecrets(t *testing.T) {
	short := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 23))
	long := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 65))
	for _, text := range []string{"", "\n", "# only words", "hunter2", testSecret[6:], short, long, "whsec_!!!", testSecret + "\nhunter2"} {
		_, err := ParseSecrets(text)
		if !errors.Is(err, ErrSecret) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseSecrets(strings.Repeat(testSecret+"\n", 5)); err == nil {
		t.Error("five are too many")
	}
	if s := fmt.Sprintf("%v %+v %#v %s", secrets(t, testSecret), secrets(t, testSecret)[0], secrets(t, testSecret)[0], secrets(t, testSecret)); strings.Contains(s, "MfKQ") {
		t.Errorf("a secret shows itself: %s", s)
	}
}

func TestConfig(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	good := Config{URLs: []string{"https://user:hunter2@ops.example/hook?key=hunter2"}}
	if _, err := New(nc, good); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*Config){
		"URLs":     func(c *Config) { c.URLs = nil },
		"URLs ":    func(c *Config) { c.URLs = []string{"ftp://ops.example/hunter2"} },
		"URLs  ":   func(c *Config) { c.URLs = []string{"http:///hunter2"} },
		"URLs   ":  func(c *Config) { c.URLs = []string{"http://ops.example/%zzhunter2"} },
		"URLs    ": func(c *Config) { c.URLs = []string{"http://ops.example/hunter2", "http://ops.example/hunter2"} },
		"Kinds":    func(c *Config) { c.Kinds = []hivebeat.Kind{"dead"} },
		"Secrets":  func(c *Config) { c.Secrets = []Secret{{}} },
		"Prefix":   func(c *Config) { c.Prefix = "a.b" },
		"Parallel": func(c *Config) { c.Parallel = -1 },
		"Timeout":  func(c *Config) { c.Timeout = time.Hour },
		"GiveUp":   func(c *Config) { c.GiveUp = -1 },
		"Queue":    func(c *Config) { c.Queue = -1 },
	} {
		cfg := good
		change(&cfg)
		_, err := New(nc, cfg)
		if err == nil || !strings.Contains(err.Error(), "Config."+strings.TrimSpace(field)) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := New(nil, good); err == nil {
		t.Error("no connection, no error")
	}
}

func TestBackoff(t *testing.T) {
	for try, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1_000_000: 5 * time.Minute} {
		for range 100 {
			if d := backoff(try); d < most/2 || d >= most {
				t.Fatalf("after %d tries: %v", try, d)
			}
		}
	}
	now := time.Now()
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "soon": 0, "99999999": time.Hour, "99999999999999999999": 0,
		now.Add(90 * time.Second).UTC().Format(http.TimeFormat): 90 * time.Second, now.Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	} {
		if d := retryAfter(s, now); d > want || d < want-time.Second {
			t.Errorf("%q: %v, want %v", s, d, want)
		}
	}
}

// The request holds the event as it is in the stream, with a signature and the
// credentials.
func TestRequest(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	r := receive(t)
	w, _ := start(t, nc, Config{URLs: []string{strings.Replace(r.URL, "//", "//me:hunter2@", 1) + "/hook?key=1"}, Secrets: secrets(t, testSecret)})
	listening(t, nc, w)
	tell(t, nc, hivebeat.KindLost, "gpu-01.7.llama.3")
	r.await(t, "gpu-01.7.llama.3")
	got := r.all()[0]
	h := got.header
	if h.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" || !strings.HasPrefix(h.Get("Authorization"), "Basic ") {
		t.Errorf("%v", h)
	}
	sec, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(sec, 0)) > time.Hour {
		t.Errorf("timestamp %q", h.Get("Webhook-Timestamp"))
	}
	if want := sign(secrets(t, testSecret), "gpu-01.7.llama.3", time.Unix(sec, 0), got.body); h.Get("Webhook-Signature") != want {
		t.Errorf("signature %q, want %q", h.Get("Webhook-Signature"), want)
	}
	var e hivebeat.Event
	if err := json.Unmarshal(got.body, &e); err != nil || e.Type != "hivebeat.worker.lost.v1" || e.ID != "gpu-01.7.llama.3" {
		t.Errorf("%v: %s", err, got.body)
	}
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.Told == 1 && s.Failed == 0 && strings.HasPrefix(s.Target, "http://127.0.0.1:"), fmt.Sprintf("%+v", s)
	})
}

// Two queens share the events to post, and a stop in between loses none.
func TestOnceByAllQueens(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	stored(t, nc)
	r, other := receive(t), receive(t)
	cfg := Config{URLs: []string{r.URL, other.URL}}
	a, stopA := start(t, nc, cfg)
	listening(t, nc, a)
	_, stopB := start(t, bustest.Conn(t, srv), cfg)
	var ids []string
	for i := range 40 {
		ids = append(ids, fmt.Sprintf("e.%d", i))
	}
	tell(t, nc, hivebeat.KindLost, ids[:20]...)
	r.await(t, ids[:20]...)
	stopA()
	stopB()
	tell(t, nc, hivebeat.KindJoined, ids[20:30]...) // neither is running
	start(t, nc, cfg)
	tell(t, nc, hivebeat.KindLeft, ids[30:]...)
	r.await(t, ids...)
	other.await(t, ids...)
}

func TestKinds(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	r := receive(t)
	w, _ := start(t, nc, Config{URLs: []string{r.URL}, Kinds: []hivebeat.Kind{hivebeat.KindLost, hivebeat.KindBrake, hivebeat.KindLost}})
	listening(t, nc, w)
	tell(t, nc, hivebeat.KindJoined, "joined")
	tell(t, nc, hivebeat.KindLost, "lost")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"queen.log.gpu-01.lost", "queen.log.gpu-01.left", "queen.log.brake"} {
		if _, err := js.Publish(t.Context(), subject, []byte(`{"id":"`+subject+`"}`)); err != nil { // the id of a message without the header
			t.Fatal(err)
		}
	}
	r.await(t, "lost", "queen.log.gpu-01.lost", "queen.log.brake")
}

// A receiver that fails is tried again, at the time it asks for if it does. A redirect
// is not followed. A receiver that is gone is not tried again.
func TestMisbehaving(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	r := receive(t)
	hang := make(chan struct{})
	var asked time.Time
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(500) },
		func(w http.ResponseWriter) { w.Header().Set("Location", elsewhere.URL); w.WriteHeader(307) },
		func(http.ResponseWriter) { <-hang }, // slower than the time limit
		func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			asked = time.Now()
			w.WriteHeader(503)
		},
		func(w http.ResponseWriter) {
			if d := time.Since(asked); d < 900*time.Millisecond {
				t.Errorf("asked again after %v, not a second", d)
			}
			w.WriteHeader(200)
		},
	}
	r.set(func(n int, w http.ResponseWriter, _ *http.Request) {
		if n <= len(answers) {
			answers[n-1](w)
			return
		}
		w.WriteHeader(410)
	})
	log := &bustest.Log{}
	w, _ := start(t, nc, Config{URLs: []string{r.URL + "/secret-path"}, Timeout: 200 * time.Millisecond, Parallel: 1, Logger: log.Logger(slog.LevelDebug)})
	listening(t, nc, w)
	defer close(hang)
	tell(t, nc, hivebeat.KindLost, "hard")
	r.await(t, "hard")
	tell(t, nc, hivebeat.KindLost, "unwanted")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.GivenUp == 1 && s.Told == 1 && s.Failed == uint64(len(answers)) && s.Failing, fmt.Sprintf("%+v", s)
	})
	r.set(nil)
	tell(t, nc, hivebeat.KindLost, "next")
	r.await(t, "hard", "next")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := log.String()
		return strings.Count(s, "webhook fails") == 2 && strings.Contains(s, "event=unwanted") && strings.Count(s, "webhook works again") == 2, s
	})
	if s := log.String(); strings.Contains(s, "secret-path") {
		t.Errorf("log: %s", s)
	}
}

// A receiver that is away for a while misses nothing. For one that always fails, each
// event is given up in turn.
func TestReceiverRestarts(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	r := receive(t)
	addr := r.Listener.Addr().String()
	log := &bustest.Log{}
	w, _ := start(t, nc, Config{URLs: []string{r.URL}, Logger: log.Logger(slog.LevelDebug)})
	listening(t, nc, w)
	tell(t, nc, hivebeat.KindLost, "1")
	r.await(t, "1")
	r.Close()
	tell(t, nc, hivebeat.KindLost, "2", "3", "4", "5", "6", "7")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.Failed >= 6, fmt.Sprintf("%+v", s)
	})
	again := &receiver{}
	var ln net.Listener
	bustest.Eventually(t, soon, func() (ok bool, state string) {
		var err error
		ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		return err == nil, fmt.Sprint(err)
	})
	again.Server = &httptest.Server{Listener: ln, Config: &http.Server{Handler: again}}
	again.Start()
	t.Cleanup(again.Close)
	again.await(t, "2", "3", "4", "5", "6", "7")
	if n := strings.Count(log.String(), "webhook fails"); n != 1 {
		t.Errorf("%d warnings for one outage", n)
	}
}

// A request that began before an outage and ends during it does not end the outage.
func TestLateEndsTurnNothing(t *testing.T) {
	var w target
	before := time.Now()
	if first, second := w.turn(true, before), w.turn(true, time.Now()); !first || second {
		t.Errorf("the first failure begins an outage: %t, the second: %t", first, second)
	}
	if w.turn(false, before.Add(-time.Second)) {
		t.Error("an answer to what was asked before ended it")
	}
	if !w.turn(false, time.Now()) {
		t.Error("an answer to what was asked since did not")
	}
	if w.turn(true, before) {
		t.Error("a failure of what was asked before began another")
	}
}

func TestGivenUp(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	r := receive(t)
	r.set(func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400) })
	w, _ := start(t, nc, Config{URLs: []string{r.URL}, GiveUp: 50 * time.Millisecond})
	listening(t, nc, w)
	tell(t, nc, hivebeat.KindLost, "1", "2", "3")
	bustest.Eventually(t, soon, func() (bool, string) {
		s := w.Stats()[0]
		return s.GivenUp == 3, fmt.Sprintf("%+v", s)
	})
	n := len(r.all())
	r.set(nil)
	tell(t, nc, hivebeat.KindLost, "4")
	r.await(t, "4")
	if all := r.all(); len(all) != n+1 {
		t.Errorf("what was given up came again: %d requests, then %+v", n, all[n:])
	}
}

// A NATS server that restarts, even with an empty store, is found again.
func TestServerRestarts(t *testing.T) {
	srv := bustest.Server(t)
	nc := bustest.Conn(t, srv)
	stored(t, nc)
	r := receive(t)
	w, _ := start(t, nc, Config{URLs: []string{r.URL}})
	listening(t, nc, w)
	tell(t, nc, hivebeat.KindLost, "before")
	r.await(t, "before")
	bustest.RestartEmpty(t, srv)
	bustest.Eventually(t, soon, func() (bool, string) { return nc.IsConnected(), nc.Status().String() })
	stored(t, nc)
	tell(t, nc, hivebeat.KindLost, "after") // perhaps before the consumer is created again
	r.await(t, "before", "after")
}

func TestLifecycle(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t, bustest.NoJetStream()))
	w, err := New(nc, Config{URLs: []string{"http://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := w.Run(t.Context()); err != nil { // it was stopped before
		t.Error(err)
	}
	if err := w.Run(t.Context()); err == nil {
		t.Error("it runs twice")
	}
	start(t, nc, Config{URLs: []string{"http://127.0.0.1:1"}}) // there is no JetStream: it waits, and ends when stopped
}

// After Stop nothing more is pulled: waiting events are left to another queen. This
// once depended on chance, and sometimes a stop took too long.
func TestStoppedStreamPullsNoMore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		s := &stream{t: &target{cfg: &Config{Parallel: 1}}} // a pull would need JetStream
		s.run(ctx, func(*delivery) { t.Error("an event was told") })
	}
}

// What an operator silenced is not posted, and holds up nothing.
func TestSilenced(t *testing.T) {
	nc := bustest.Conn(t, bustest.Server(t))
	stored(t, nc)
	r := receive(t)
	w, _ := start(t, nc, Config{URLs: []string{r.URL}})
	listening(t, nc, w)
	d := hivebeat.EventData{Hive: "gpu-01", Worker: "llama", Kind: hivebeat.KindLost}
	tellData(t, nc, d, "first")
	d.Silenced = true
	tellData(t, nc, d, "silenced-1", "silenced-2")
	d.Silenced = false
	tellData(t, nc, d, "last")
	r.await(t, "first", "last")
	if s := w.Stats()[0]; s.Told != 2 || s.Failed != 0 || s.GivenUp != 0 {
		t.Errorf("%+v", s)
	}
}
