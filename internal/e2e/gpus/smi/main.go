//go:build e2e

// Command smi stands in for nvidia-smi in tests: it plays a scene, the JSON file that the
// variable SCENE names. It answers -q -x, --query-gpu=COLS and --query-compute-apps=COLS
// with --format=csv[,noheader][,nounits], and -L.
//
// A scene is one object; every key may be absent:
//
//	about    where the situation was reported
//	driver   version of the driver
//	gpus     GPUs in the order of their indexes: objects that map columns of --query-gpu to
//	         values. A string is a line that is printed as it is, in the CSV form only if it
//	         begins with "[". A column that is absent is [N/A]. "mig" lists MIG instances:
//	         index, gi, ci, profile, uuid, total, reserved, used
//	apps     processes: gpu_uuid, pid, used_memory, process_name, and gi, ci within MIG
//	before   lines to print first
//	after    lines to print last
//	stderr   lines for standard error
//	silent   print neither a table nor XML
//	exit     code
//	sleep    seconds before anything is printed
//	hang     never end, and ignore SIGTERM, SIGINT and SIGHUP
//	child    start a process first that runs until it is killed and holds standard output
//	cut      print only that many bytes
//	flood    print that many bytes beside, after the answer
//	kill     end by SIGKILL once half the answer is printed
//	steps    other keys, by the name of a step
//
// The keys of a step replace those of the scene while the file SCENE.step holds its name.
// "broken" is also a step that may stand beside steps, as in scenes of other stand-ins; it
// is played while the file SCENE.broken exists too. A pid may be the name of a file: the
// process whose pid that file holds.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type scene struct {
	About  string                     `json:"about"`
	Driver string                     `json:"driver"`
	GPUs   []json.RawMessage          `json:"gpus"`
	Apps   []map[string]any           `json:"apps"`
	Before []string                   `json:"before"`
	After  []string                   `json:"after"`
	Stderr []string                   `json:"stderr"`
	Silent bool                       `json:"silent"`
	Exit   int                        `json:"exit"`
	Sleep  float64                    `json:"sleep"`
	Hang   bool                       `json:"hang"`
	Child  bool                       `json:"child"`
	Cut    int                        `json:"cut"`
	Flood  int                        `json:"flood"`
	Kill   bool                       `json:"kill"`
	Broken json.RawMessage            `json:"broken"`
	Steps  map[string]json.RawMessage `json:"steps"`
}

// lasting is the argument of the process that a scene leaves behind.
const lasting = "--lasting"

func main() {
	if len(os.Args) == 2 && os.Args[1] == lasting {
		forever()
	}
	file := os.Getenv("SCENE")
	s, err := load(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		os.Exit(99)
	}
	if s.Child {
		c := exec.Command(os.Args[0], lasting)
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			fmt.Fprintln(os.Stderr, "stand-in:", err)
		}
	}
	if s.Hang {
		forever()
	}
	time.Sleep(time.Duration(s.Sleep * float64(time.Second)))
	for _, line := range s.Stderr {
		fmt.Fprintln(os.Stderr, line)
	}
	out := s.answer(filepath.Dir(file), os.Args[1:])
	if s.Cut > 0 {
		out = out[:min(s.Cut, len(out))]
	}
	if s.Kill {
		_, _ = os.Stdout.Write(out[:len(out)/2])
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	_, _ = os.Stdout.Write(out)
	for n := 0; n < s.Flood; n += 64 {
		if _, err := fmt.Println(strings.Repeat("x", 63)); err != nil {
			break
		}
	}
	os.Exit(s.Exit)
}

// forever never returns. Only SIGKILL ends the process.
func forever() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for {
		time.Sleep(time.Hour)
	}
}

// load reads a scene, and the step that is played.
func load(file string) (s scene, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	var over json.RawMessage
	if name, err := os.ReadFile(file + ".step"); err == nil {
		step := strings.TrimSpace(string(name))
		over = s.Steps[step]
		if step == "broken" && over == nil {
			over = s.Broken
		}
		if step != "" && over == nil {
			return s, fmt.Errorf("%s has no step %q", file, step)
		}
	} else if _, err := os.Stat(file + ".broken"); err == nil {
		over = s.Broken
	}
	if over == nil {
		return s, nil
	}
	// Decoding into the scene would merge lists: what a step has replaces the whole.
	var whole, part map[string]json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil {
		return s, err
	}
	if err := json.Unmarshal(over, &part); err != nil {
		return s, err
	}
	maps.Copy(whole, part)
	if b, err = json.Marshal(whole); err != nil {
		return s, err
	}
	var played scene
	return played, json.Unmarshal(b, &played)
}

// answer returns what goes to standard output.
func (s *scene) answer(dir string, args []string) []byte {
	var b bytes.Buffer
	for _, line := range s.Before {
		fmt.Fprintln(&b, line)
	}
	opts := map[string]string{}
	for _, a := range args {
		k, v, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		opts[k] = v
	}
	has := func(k string) bool { _, ok := opts[k]; return ok }
	gpus := s.gpus()
	s.pids(dir)
	switch {
	case s.Silent:
	case has("query-gpu"):
		rows := make([]any, len(gpus))
		copy(rows, gpus)
		table(&b, rows, opts["query-gpu"], opts["format"])
	case has("query-compute-apps"):
		var rows []any
		for _, a := range s.Apps {
			rows = append(rows, a)
		}
		table(&b, rows, opts["query-compute-apps"], opts["format"])
	case has("L"):
		s.list(&b, gpus)
	case has("x"):
		s.xml(&b, gpus)
	}
	for _, line := range s.After {
		fmt.Fprintln(&b, line)
	}
	return b.Bytes()
}

// gpus returns objects and lines, in order.
func (s *scene) gpus() (list []any) {
	for _, raw := range s.GPUs {
		var line string
		if json.Unmarshal(raw, &line) == nil {
			list = append(list, line)
			continue
		}
		g := map[string]any{}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&g); err == nil {
			list = append(list, g)
		}
	}
	return list
}

// pids replaces names of files by the pids that they hold. A process without such a file
// does not exist yet.
func (s *scene) pids(dir string) {
	var there []map[string]any
	for _, a := range s.Apps {
		if name, ok := a["pid"].(string); ok {
			b, err := os.ReadFile(filepath.Join(dir, name))
			pid, bad := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil || bad != nil || syscall.Kill(pid, 0) != nil {
				continue
			}
			a["pid"] = pid
		}
		there = append(there, a)
	}
	s.Apps = there
}
