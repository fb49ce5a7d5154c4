package check

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/queen"
)

const (
	rulesFile     = "../prometheus/hivebeat.rules.yml"
	scrapeFile    = "../prometheus/prometheus.yml"
	dashboardFile = "../grafana/hivebeat.json"
)

// rules parses the alerts with Prometheus' own checks of expressions, durations, labels
// and templates.
func rules(t testing.TB) (list []rulefmt.Rule) {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || t.Failed() {
		t.FailNow()
	}
	for _, g := range groups.Groups {
		list = append(list, g.Rules...)
	}
	return list
}

// queries returns the expressions of the dashboard, with its variables filled in.
func queries(t testing.TB) (list []string) {
	t.Helper()
	b, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var d any
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$queen", ".*", "$hive", ".*")
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				if s, ok := v[k].(string); ok && k == "expr" {
					list = append(list, fill.Replace(s))
				}
				walk(v[k])
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(d)
	if len(list) < 30 {
		t.Fatalf("only %d expressions in the dashboard", len(list))
	}
	return list
}

// selectors returns the series that an expression reads.
func selectors(t testing.TB, expr string) (list []*parser.VectorSelector) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			list = append(list, v)
		}
		return nil
	})
	if len(list) == 0 {
		t.Errorf("%s reads no metric", expr)
	}
	return list
}

func TestAlertsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Hivebeat") {
			t.Errorf("%s: no name, or twice", r.Alert)
		}
		seen[r.Alert] = true
		for _, k := range []string{"summary", "description", "action"} {
			if len(r.Annotations[k]) < 10 {
				t.Errorf("%s has no %s", r.Alert, k)
			}
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
	}
	for _, name := range []string{"HiveLost", "WorkerLost", "FalseDead", "BrakeOn", "QueenUnsure", "JetStreamAway", "QueenAbsent", "QueenDrops", "ForeignVRAM", "StaleFacts", "GPUFailing", "GPUGone", "GPUUnread", "GPUOrphan"} {
		if !seen["Hivebeat"+name] {
			t.Errorf("no alert Hivebeat%s", name)
		}
	}
}

// The scrape config names the rules, and the jobs that the dashboard reads.
func TestScrapeConfig(t *testing.T) {
	b, err := os.ReadFile(scrapeFile)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Global    map[string]string `yaml:"global"`
		RuleFiles []string          `yaml:"rule_files"`
		Scrape    []struct {
			Job    string `yaml:"job_name"`
			Static []struct {
				Targets []string `yaml:"targets"`
			} `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	d := yaml.NewDecoder(strings.NewReader(string(b)))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	for _, f := range c.RuleFiles {
		if _, err := os.Stat(filepath.Join(filepath.Dir(scrapeFile), f)); err != nil {
			t.Error(err)
		}
	}
	want := map[string]string{"hivebeat-queen": "127.0.0.1:7833", "hivebeat-hive": "127.0.0.1:7834"}
	for _, s := range c.Scrape {
		if len(s.Static) != 1 || len(s.Static[0].Targets) != 1 || s.Static[0].Targets[0] != want[s.Job] {
			t.Errorf("%+v", s)
		}
		delete(want, s.Job)
	}
	if len(want) > 0 || len(c.RuleFiles) == 0 {
		t.Errorf("missing: %v, rules %v", want, c.RuleFiles)
	}
}

// A real scrape contains every series that rules and dashboard read, and the alerts
// fire on a real death and not before.
func TestLiveFabric(t *testing.T) {
	f := begin(t)
	f.await("warm, with its hive", func(r queen.Report) bool {
		return r.Status.Warm && len(r.Status.Unsure) == 0 && r.Live[hivebeat.Alive] == 1 && r.GPUs == 1
	})
	f.beat("llama", 1, time.Hour)
	f.await("a worker", func(r queen.Report) bool { return r.Shown[hivebeat.Alive] == 1 })

	s, now := newStore(t), time.Now()
	f.scrape(s, now, 8)
	t.Run("what is read exists", func(t *testing.T) {
		exprs := queries(t)
		for _, r := range rules(t) {
			exprs = append(exprs, r.Expr)
		}
		for _, expr := range exprs {
			for _, v := range selectors(t, expr) {
				found := false
				for _, x := range s.series {
					found = found || matches(x.labels, v.LabelMatchers)
				}
				if !found {
					t.Errorf("%s: nothing is scraped for %s", expr, v)
				}
			}
		}
	})
	t.Run("queries can be evaluated", func(t *testing.T) {
		for _, expr := range queries(t) {
			s.query(t, expr, now)
		}
	})
	// A busy machine may cause these by itself.
	noise := map[string]bool{"HivebeatQueenStarved": true, "HivebeatHiveStarved": true, "HivebeatQueenUnsure": true}
	firing := func(at time.Time) (names []string) {
		t.Helper()
		for _, r := range rules(t) {
			if len(s.query(t, r.Expr, at)) > 0 && !noise[r.Alert] {
				names = append(names, r.Alert)
			}
		}
		return names
	}
	if got := firing(now); len(got) > 0 {
		t.Fatalf("all is well, and %v fire", got)
	}

	// The worker stops beating, and nothing sees its end.
	f.beat("llama", 2, time.Second)
	f.await("the worker's death", func(r queen.Report) bool {
		return r.Shown[hivebeat.Lost] == 1 && r.WorkerTransitions.Lost[hivebeat.CauseMissed] == 1
	})
	now = now.Add(time.Minute)
	f.scrape(s, now, 4)
	if got := firing(now); !slices.Equal(got, []string{"HivebeatWorkerLost"}) {
		t.Errorf("a worker died, and %v fire", got)
	}
	if v := s.query(t, rules(t)[1].Expr, now); len(v) != 1 || v[0].Metric.Get("cause") != "missed" {
		t.Errorf("%v", v)
	}

	// It is heard again: the verdict was wrong.
	f.beat("llama", 3, time.Hour)
	f.await("the worker's return", func(r queen.Report) bool { return r.WorkerTransitions.Disproved == 1 })
	now = now.Add(10 * time.Minute)
	f.scrape(s, now, 4)
	if got := firing(now); !slices.Contains(got, "HivebeatFalseDead") || slices.Contains(got, "HivebeatWorkerLost") {
		t.Errorf("it came back, and %v fire", got)
	}

	// The hive ends without a goodbye.
	f.killHive()
	f.await("the hive's death", func(r queen.Report) bool { return r.Live[hivebeat.Lost] == 1 })
	now = now.Add(time.Minute)
	f.scrape(s, now, 4)
	if got := firing(now); !slices.Contains(got, "HivebeatHiveLost") || !slices.Contains(got, "HivebeatHiveCutOff") {
		t.Errorf("a machine died, and %v fire", got)
	}

	// Then all scrapes stop.
	now = now.Add(10 * time.Minute)
	if got := firing(now); !slices.Equal(got, []string{"HivebeatQueenAbsent"}) {
		t.Errorf("all is gone, and %v fire", got)
	}
}
