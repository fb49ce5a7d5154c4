//go:build e2e

package gpus

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/e2e/rig"
)

// row is one scene: what is done, and what everybody is told.
type row struct {
	name    string // the situation
	scene   string // file in testdata/scenes, without .json
	flags   []string
	engines []engine
	steps   []step
}

// step is a part of a scene.
type step struct {
	play string         // the scene's step; "" is the scene as it stands
	do   func(*machine) // what else is done
	most time.Duration  // until all is told; default moment
	want want
}

// want is what is told once a step has begun. An empty field is not checked. Where a field
// is a regular expression, it may match anywhere in the text.
type want struct {
	// gpus has one entry for each GPU, by index: its state, cause and action, as in
	// "ok" or "failing reset reset". An entry is a regular expression over all of it.
	gpus []string
	// note matches the line of hivebeat ls about the hive.
	note string
	// get matches hivebeat get HIVE.
	get string
	// pick is the places that pick --for gpu offers, by index of the GPU and profile of the
	// instance: best first, or in any order if it begins with "any:". "none" is none.
	pick string
	// free is the free memory in bytes that pick asks for. Default: none.
	free uint64
	// worker is the workers that pick offers for the row's model, best first; "none" is none.
	worker string
	// why matches hivebeat get HIVE/WORKER, by worker.
	why map[string]string
	// events are those about GPUs since the machine began: kind and index, in any order.
	// An empty list, other than nil, says that there are none.
	events []string
	// metric matches a line of the hive's metrics.
	metric string
	// collect matches the state of the source gpu.
	collect string
	// ours is how many bytes this hive's workers hold, by GPU.
	ours map[int]uint64
	// standIns is how many processes of nvidia-smi may run at most.
	standIns *int
	// also is any other check. It returns what is wrong.
	also func(*machine) string
}

// look returns what of w does not hold now. It asks for text only once the facts hold.
func (m *machine) look(w want) (wrong []string) {
	no := func(what string, got any, want string) {
		wrong = append(wrong, fmt.Sprintf("%s: %v\n\t\twant %s", what, got, want))
	}
	h, err := m.hiveInfo()
	if err != nil {
		return []string{err.Error()}
	}
	if w.gpus != nil {
		got := conditions(h.GPUs)
		for i := range max(len(got), len(w.gpus)) {
			switch {
			case i >= len(got):
				no(fmt.Sprintf("GPU %d", i), "not listed", w.gpus[i])
			case i >= len(w.gpus):
				no(fmt.Sprintf("GPU %d", i), got[i], "not to be listed")
			case !regexp.MustCompile("^(?:" + w.gpus[i] + ")$").MatchString(got[i]):
				no(fmt.Sprintf("GPU %d", i), got[i]+" · "+h.GPUs[i].Evidence+" · "+h.GPUs[i].Err, w.gpus[i])
			}
		}
	}
	if got := h.Collect["gpu"]; w.collect != "" && !matches(w.collect, got) {
		no("collect gpu", got, w.collect)
	}
	for i, want := range w.ours {
		if i >= len(h.GPUs) || h.GPUs[i].Ours != want {
			no(fmt.Sprintf("ours on GPU %d", i), h.GPUs, strconv.FormatUint(want, 10))
		}
	}
	if w.events != nil {
		got := m.gpuEvents()
		slices.Sort(got)
		want := slices.Sorted(slices.Values(w.events))
		if !slices.Equal(got, want) {
			no("events", got, fmt.Sprint(want))
		}
	}
	if w.pick != "" {
		if got, want := m.places(w.free, strings.HasPrefix(w.pick, "any:")), strings.TrimPrefix(w.pick, "any:"); got != want {
			no("pick --for gpu", got, want)
		}
	}
	if w.worker != "" {
		if got := m.workers(); got != w.worker {
			no("pick --model", got, w.worker)
		}
	}
	if n := len(m.standIns()); w.standIns != nil && n > *w.standIns {
		no("processes of nvidia-smi", n, fmt.Sprint(*w.standIns))
	}
	if w.also != nil {
		if what := w.also(m); what != "" {
			wrong = append(wrong, what)
		}
	}
	if len(wrong) > 0 {
		return wrong
	}
	if w.note != "" {
		line := lineOf(m.cli("ls", "hives", "--hive", m.id), m.id)
		if !matches(w.note, line) {
			no("ls", line, w.note)
		}
	}
	if w.get != "" {
		if text := m.cli("get", m.id); !matches(w.get, text) {
			no("get", text, w.get)
		}
	}
	for id, want := range w.why {
		if text := m.cli("get", m.id+"/"+id); !matches(want, text) {
			no("get "+id, text, want)
		}
	}
	if w.metric != "" {
		body, err := fetch(m.metrics)
		if err != nil || !matches("(?m)^"+w.metric+"$", string(body)) {
			no("metrics", strings.Join(about("gpu", string(body)), "\n"), w.metric)
		}
	}
	return wrong
}

// conditions describes each GPU by state, cause and action.
func conditions(gpus []hivebeat.GPU) (list []string) {
	for i := range gpus {
		g := &gpus[i]
		list = append(list, strings.Join(strings.Fields(string(g.Condition())+" "+string(g.Cause)+" "+g.Action), " "))
	}
	return list
}

// places returns what pick --for gpu offers on the machine.
func (m *machine) places(free uint64, sorted bool) string {
	q := "/v1/pick?for=gpu&spread=none&n=100&hive=" + m.id
	if free > 0 {
		q += "&free_vram=" + strconv.FormatUint(free, 10)
	}
	a, err := m.get(q)
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, p := range a.Picks {
		at := "?"
		if p.GPUIndex != nil {
			at = strconv.FormatUint(*p.GPUIndex, 10)
		}
		if p.Profile != "" {
			at += "/" + p.Profile
		}
		list = append(list, at)
	}
	if sorted {
		slices.Sort(list)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}

// workers returns what pick offers for the model of the machine's workers.
func (m *machine) workers() string {
	a, err := m.get("/v1/pick?spread=none&n=100&model=model-" + m.id)
	if err != nil {
		return err.Error()
	}
	var list []string
	for _, p := range a.Picks {
		list = append(list, p.Worker)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}

func matches(pattern, text string) bool {
	return regexp.MustCompile("(?i)" + pattern).MatchString(text)
}

// lineOf returns the lines of a table that begin with a name, and those below that are
// indented.
func lineOf(text, name string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+" ") || len(lines) > 0 && strings.HasPrefix(line, " ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// about returns the lines that contain a word and are no comments.
func about(word, text string) (list []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) && !strings.HasPrefix(line, "#") {
			list = append(list, strings.TrimSpace(line))
		}
	}
	return list
}

func TestScenes(t *testing.T) {
	f := start(t)
	t.Run("scenes", func(t *testing.T) { // ends when all of them have
		for i, r := range scenes() {
			t.Run(strings.ReplaceAll(r.scene+": "+r.name, "/", " "), func(t *testing.T) {
				t.Parallel()
				m := f.machine(t, fmt.Sprintf("m%02d", i), r)
				for n, s := range r.steps {
					m.step(n, s)
				}
			})
		}
	})
}

// step plays a step and waits until everybody is told.
func (m *machine) step(n int, s step) {
	m.t.Helper()
	if n > 0 {
		m.play(s.play)
	}
	if s.do != nil {
		s.do(m)
	}
	most := s.most
	if most == 0 {
		most = moment
	}
	pace := time.NewTicker(time.Second) // a look asks several questions
	defer pace.Stop()
	begun := time.Now()
	rig.Until(m.t, most, fmt.Sprintf("step %d (%s)", n, s.play), func() (bool, string) {
		wrong := m.look(s.want)
		if len(wrong) > 0 {
			<-pace.C
		}
		return len(wrong) == 0, "\n\t" + strings.Join(wrong, "\n\t")
	})
	m.t.Logf("step %d (%s) is told after %.0f s", n, s.play, time.Since(begun).Seconds())
}
