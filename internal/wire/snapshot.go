package wire

import (
	"slices"
	"strconv"

	"github.com/beatfabric/hivebeat"
)

// ParseSnapshot checks every rule of docs/PROTOCOL.md for a snapshot and each record in
// it, and parses b into v, as ParseBeat does. It reuses v's slices, so that parsing
// into the same v allocates nothing in the long run. The server's max_payload limits
// its size.
func ParseSnapshot(b []byte, v *SnapshotView) error { return v.nothing.Parse(b, v) }

// Parse is ParseSnapshot for the next snapshot of the hive that m remembers. A record
// with an unchanged stable part costs a tenth.
func (m *SnapshotMemo) Parse(b []byte, v *SnapshotView) error {
	*v = SnapshotView{GPUs: v.GPUs[:0], GPUTr: v.GPUTr[:0], Workers: v.Workers[:0]}
	v.rows = rows{memo: m, list: v.Workers}
	s := scanner{b: b, rows: &v.rows}
	switch end := s.value(0, 0); {
	case end >= 0 && end != len(b):
		return refuse(hivebeat.RefusedMalformed, "", "bytes after the value")
	case s.err != nil:
		return s.err
	}
	c := cursor{b: b}
	var version int64
	for range c.pairs("") {
		switch string(c.key()) {
		case "v":
			version = c.version()
		case "hive":
			v.Hive = c.text("hive", len(b))
		case "inc":
			v.Inc = c.uint("inc")
		case "every":
			v.Every = c.uint("every")
		case "seq":
			v.Seq = c.uint("seq")
		case "sent":
			v.Sent = c.int("sent")
		case "warm":
			v.Warm = c.bool("warm")
		case "page":
			v.Page = c.upto("page", hivebeat.MaxPages)
		case "pages":
			v.Pages = c.upto("pages", hivebeat.MaxPages)
		case "bye":
			v.Bye = c.text("bye", hivebeat.MaxReason)
		case "conn":
			v.Conn = c.text("conn", hivebeat.MaxConn)
		case "rw":
			v.RW = c.uint("rw")
		case "pid":
			v.PID = c.uint("pid")
		case "labels":
			v.Labels = c.labels()
		case "host":
			c.host(&v.Host)
		case "gpus":
			v.GPUs = c.gpus(v.GPUs)
		case "vram_budget":
			v.VRAMBudget = c.uint("vram_budget")
		case "gpu_n":
			v.GPUN = c.uint("gpu_n")
		case "gpu_tr":
			v.GPUTr = c.gpuTransitions(v.GPUTr)
		case "collect":
			v.Collect = c.textMap("collect", hivebeat.MaxSources, hivebeat.MaxLabelKey, hivebeat.MaxHostText)
		case "stats":
			c.stats(&v.Stats)
		case "worker": // this is a beat: accepted as a snapshot, it would take over the hive that it names
			c.err = refuse(hivebeat.RefusedForeign, "worker", "is a beat, not a snapshot")
			c.skip()
		case "workers":
			if c.err == nil {
				c.err = v.rows.err
			}
			v.Workers, c.b = v.rows.list, b[v.rows.end:]
		default:
			c.skip()
		}
	}
	c.ident("hive", v.Hive)
	c.promise(v.Inc, v.Seq, v.Every)
	if v.Pages == 0 {
		v.Pages = 1
	}
	if v.Page >= v.Pages {
		c.fail(hivebeat.RefusedLimit, "page", strconv.FormatUint(v.Page, 10)+" of "+strconv.FormatUint(v.Pages, 10))
	}
	return c.done(version)
}

func (c *cursor) host(v *HostView) {
	for range c.pairs("host") {
		switch string(c.key()) {
		case "name":
			v.Name = c.text("host.name", hivebeat.MaxHostText)
		case "os":
			v.OS = c.text("host.os", hivebeat.MaxHostText)
		case "arch":
			v.Arch = c.text("host.arch", hivebeat.MaxHostText)
		case "cpus":
			v.CPUs = c.uint("host.cpus")
		case "load1":
			v.Load1 = c.float("host.load1")
		case "cpu":
			v.CPU = c.float("host.cpu")
		case "mem_total":
			v.MemTotal = c.uint("host.mem_total")
		case "mem_used":
			v.MemUsed = c.uint("host.mem_used")
		case "uptime":
			v.Uptime = c.uint("host.uptime")
		case "kernel":
			v.Kernel = c.text("host.kernel", hivebeat.MaxHostText)
		case "driver":
			v.Driver = c.text("host.driver", hivebeat.MaxHostText)
		case "cache_total":
			v.CacheTotal = c.uint("host.cache_total")
		case "cache_free":
			v.CacheFree = c.uint("host.cache_free")
		case "store_total":
			v.StoreTotal = c.uint("host.store_total")
		case "store_free":
			v.StoreFree = c.uint("host.store_free")
		default:
			c.skip()
		}
	}
}

func (c *cursor) gpus(list []GPUView) []GPUView {
	n := c.elems("gpus")
	if n > hivebeat.MaxGPUs {
		c.fail(hivebeat.RefusedLimit, "gpus", "too many")
	}
	for range n {
		if len(list) < cap(list) { // an earlier message's instances are reused
			list = list[:len(list)+1]
		} else {
			list = append(list, GPUView{})
		}
		v := &list[len(list)-1]
		*v = GPUView{Instances: v.Instances[:0]}
		for range c.pairs("gpus") {
			switch string(c.key()) {
			case "uuid":
				v.UUID = c.text("gpus.uuid", hivebeat.MaxGPUID)
			case "index":
				v.Index = c.uint("gpus.index")
			case "name":
				v.Name = c.text("gpus.name", hivebeat.MaxHostText)
			case "total":
				v.Total = c.uint("gpus.total")
			case "used":
				v.Used = c.uint("gpus.used")
			case "ours":
				v.Ours = c.uint("gpus.ours")
			case "util":
				v.Util = c.uint("gpus.util")
			case "temp":
				v.Temp = c.int("gpus.temp")
			case "power":
				v.Power = c.uint("gpus.power")
			case "age":
				v.Age = c.uint("gpus.age")
			case "err":
				v.Err = c.text("gpus.err", hivebeat.MaxHostText)
			case "bus":
				v.Bus = c.text("gpus.bus", hivebeat.MaxGPUID)
			case "orphaned":
				v.Orphaned = c.uint("gpus.orphaned")
			case "orphan_of":
				v.OrphanOf = c.text("gpus.orphan_of", hivebeat.MaxID)
			case "unattributed":
				v.Unattributed = c.uint("gpus.unattributed")
			case "reserved":
				v.Reserved = c.uint("gpus.reserved")
			case "unified":
				v.Unified = c.bool("gpus.unified")
			case "state":
				v.State = c.text("gpus.state", hivebeat.MaxState)
			case "cause":
				v.Cause = c.text("gpus.cause", hivebeat.MaxState)
			case "evidence":
				v.Evidence = c.text("gpus.evidence", hivebeat.MaxReason)
			case "action":
				v.Action = c.text("gpus.action", hivebeat.MaxState)
			case "since":
				v.Since = c.uint("gpus.since")
			case "boots":
				v.Boots = c.uint("gpus.boots")
			case "mig":
				v.MIG = c.bool("gpus.mig")
			case "instances":
				v.Instances = c.instances(v.Instances)
			default:
				c.skip()
			}
		}
	}
	return list
}

func (c *cursor) instances(list []InstanceView) []InstanceView {
	n := c.elems("gpus.instances")
	if n > hivebeat.MaxInstances {
		c.fail(hivebeat.RefusedLimit, "gpus.instances", "too many")
	}
	for range n {
		var v InstanceView
		for range c.pairs("gpus.instances") {
			switch string(c.key()) {
			case "uuid":
				v.UUID = c.text("gpus.instances.uuid", hivebeat.MaxGPUID)
			case "profile":
				v.Profile = c.text("gpus.instances.profile", hivebeat.MaxGPUID)
			case "gi":
				v.GI = c.uint("gpus.instances.gi")
			case "ci":
				v.CI = c.uint("gpus.instances.ci")
			case "total":
				v.Total = c.uint("gpus.instances.total")
			case "used":
				v.Used = c.uint("gpus.instances.used")
			case "ours":
				v.Ours = c.uint("gpus.instances.ours")
			case "orphaned":
				v.Orphaned = c.uint("gpus.instances.orphaned")
			case "unattributed":
				v.Unattributed = c.uint("gpus.instances.unattributed")
			case "reserved":
				v.Reserved = c.uint("gpus.instances.reserved")
			default:
				c.skip()
			}
		}
		list = append(list, v)
	}
	return list
}

func (c *cursor) gpuTransitions(list []hivebeat.GPUTransition) []hivebeat.GPUTransition {
	n := c.elems("gpu_tr")
	if n > hivebeat.MaxGPUTransitions {
		c.fail(hivebeat.RefusedLimit, "gpu_tr", "too many")
	}
	for range n {
		var t hivebeat.GPUTransition
		for range c.pairs("gpu_tr") {
			switch string(c.key()) {
			case "n":
				t.N = c.uint("gpu_tr.n")
			case "kind":
				t.Kind = hivebeat.Kind(word(c.text("gpu_tr.kind", hivebeat.MaxState)))
			case "gpu":
				t.GPU = string(c.text("gpu_tr.gpu", hivebeat.MaxGPUID))
			case "index":
				t.Index = c.uint("gpu_tr.index")
			case "from":
				t.From = hivebeat.GPUState(word(c.text("gpu_tr.from", hivebeat.MaxState)))
			case "to":
				t.To = hivebeat.GPUState(word(c.text("gpu_tr.to", hivebeat.MaxState)))
			case "cause":
				t.Cause = hivebeat.Cause(word(c.text("gpu_tr.cause", hivebeat.MaxState)))
			case "evidence":
				t.Evidence = string(c.text("gpu_tr.evidence", hivebeat.MaxReason))
			case "action":
				t.Action = string(c.text("gpu_tr.action", hivebeat.MaxState))
			case "worker":
				t.Worker = string(c.text("gpu_tr.worker", hivebeat.MaxID))
			case "asker":
				t.Asker = string(c.text("gpu_tr.asker", hivebeat.MaxID))
			case "ago":
				t.Ago = hivebeat.Millis(c.uint("gpu_tr.ago"))
			default:
				c.skip()
			}
		}
		if t.N == 0 || t.Kind == "" || t.GPU == "" {
			c.fail(hivebeat.RefusedMissing, "gpu_tr", "n, kind and gpu are required")
		}
		list = append(list, t)
	}
	return list
}

func (c *cursor) stats(v *hivebeat.Stats) {
	for range c.pairs("stats") {
		switch string(c.key()) {
		case "beats":
			v.Beats = c.uint("stats.beats")
		case "refused":
			v.Refused = c.uint("stats.refused")
		case "stale":
			v.Stale = c.uint("stats.stale")
		case "wire_lost":
			v.WireLost = c.uint("stats.wire_lost")
		case "false_dead":
			v.FalseDead = c.uint("stats.false_dead")
		case "cut_off":
			v.CutOff = c.uint("stats.cut_off")
		case "self_pause":
			v.SelfPause = hivebeat.Millis(c.uint("stats.self_pause"))
		default:
			c.skip()
		}
	}
}

// rows reads the records when the scan reaches them, one by one: each by its memo, or
// else by scan and parser.
type rows struct {
	memo *SnapshotMemo
	list []RecordView
	end  int   // where the records end
	err  error // the first fault that the scan cannot see
}

// read reads the value at i, which should be an array of records.
func (r *rows) read(s *scanner, i int) (end int) {
	c := cursor{b: s.b[i:]}
	switch {
	case i >= len(s.b):
		return s.truncated()
	case firsts[s.b[i]].form != formArray || len(s.b)-i <= int(firsts[s.b[i]].size):
		if r.end = s.value(i, 1); r.end >= 0 {
			c.wrong("workers", "an array")
			r.err = c.err
		}
		return r.end
	}
	n := c.elems("workers")
	if n > hivebeat.MaxWorkers {
		c.fail(hivebeat.RefusedLimit, "workers", "too many")
	}
	i = len(s.b) - len(c.b)
	list := r.list
	for k := range n {
		if c.err != nil { // the message is refused: the rest is only scanned
			if i = s.value(i, 2); i < 0 {
				return fault
			}
			continue
		}
		if len(list) == cap(list) {
			list = slices.Grow(list, min(n-len(list), len(list)+64))
		}
		list = list[:len(list)+1]
		row := &list[len(list)-1]
		end := r.memo.row(k, s.b, i, row)
		if end < 0 {
			if end = s.value(i, 2); end < 0 {
				return fault
			}
			c.b = s.b[i:end]
			c.record(row)
			row.mark = mark{at: uint32(i)}
		}
		i = end
	}
	r.list, r.end, r.err = list, i, c.err
	return i
}

func (c *cursor) record(v *RecordView) {
	*v = RecordView{Tr: v.Tr[:0]}
	for range c.pairs("workers") {
		switch key := c.key(); string(key) {
		case "worker":
			v.Worker = c.text("worker", len(c.b))
		case "live":
			v.Live = c.text("live", hivebeat.MaxState)
		case "cause":
			v.Cause = c.text("cause", hivebeat.MaxState)
		case "n":
			v.N = c.uint("n")
		case "tr":
			v.Tr = c.transitions(v.Tr)
		case "missed":
			v.Missed = c.uint("missed")
		case "stalled":
			v.Stalled = c.bool("stalled")
		case "rival":
			v.Rival = c.uint("rival")
		case "rival_at":
			c.place(&v.RivalAt)
		case "addr":
			v.Addr = c.text("addr", hivebeat.MaxConn)
		case "ended":
			v.Ended = c.uint("ended")
		case "on":
			v.On = c.texts("on", hivebeat.MaxGPUs, hivebeat.MaxGPUID)
		case "fault":
			v.Fault = c.text("fault", hivebeat.MaxReason)
		case "age":
			v.Age = c.uint("age")
		case "since":
			v.Since = c.uint("since")
		case "closed":
			v.Closed = c.bool("closed")
		case "restarts":
			v.Restarts = c.uint("restarts")
		case "looping":
			v.Looping = c.bool("looping")
		case "rate":
			v.Rate = c.float("rate")
		case "tps":
			v.TPS = c.float("tps")
		case "os":
			c.proc(&v.Proc)
		default:
			c.fact(key, &v.FactsView)
		}
	}
	c.ident("worker", v.Worker)
	if len(v.Live) == 0 {
		c.fail(hivebeat.RefusedMissing, "live", "")
	}
	c.facts(&v.FactsView)
}

func (c *cursor) place(v *PlaceView) {
	for range c.pairs("rival_at") {
		switch string(c.key()) {
		case "host":
			v.Host = c.text("rival_at.host", hivebeat.MaxHostText)
		case "pid":
			v.PID = c.uint("rival_at.pid")
		case "conn":
			v.Conn = c.text("rival_at.conn", hivebeat.MaxConn)
		case "addr":
			v.Addr = c.text("rival_at.addr", hivebeat.MaxConn)
		default:
			c.skip()
		}
	}
}

func (c *cursor) transitions(list []hivebeat.Transition) []hivebeat.Transition {
	n := c.elems("tr")
	if n > hivebeat.MaxTransitions {
		c.fail(hivebeat.RefusedLimit, "tr", "too many")
	}
	for range n {
		var t hivebeat.Transition
		for range c.pairs("tr") {
			switch string(c.key()) {
			case "n":
				t.N = c.uint("tr.n")
			case "kind":
				t.Kind = hivebeat.Kind(word(c.text("tr.kind", hivebeat.MaxState)))
			case "from":
				t.From = word(c.text("tr.from", hivebeat.MaxState))
			case "to":
				t.To = word(c.text("tr.to", hivebeat.MaxState))
			case "cause":
				t.Cause = hivebeat.Cause(word(c.text("tr.cause", hivebeat.MaxState)))
			case "inc":
				t.Inc = c.uint("tr.inc")
			case "detect":
				t.Detect = hivebeat.Millis(c.uint("tr.detect"))
			case "margin":
				t.Margin = hivebeat.Millis(c.uint("tr.margin"))
			case "ago":
				t.Ago = hivebeat.Millis(c.uint("tr.ago"))
			default:
				c.skip()
			}
		}
		if t.N == 0 || t.Kind == "" || t.Inc == 0 {
			c.fail(hivebeat.RefusedMissing, "tr", "n, kind and inc are required")
		}
		list = append(list, t)
	}
	return list
}

func (c *cursor) proc(v *hivebeat.Proc) {
	for range c.pairs("os") {
		switch string(c.key()) {
		case "rss":
			v.RSS = c.uint("os.rss")
		case "cpu":
			v.CPU = c.float("os.cpu")
		case "vram":
			v.VRAM = c.uint("os.vram")
		case "up":
			v.Up = hivebeat.Millis(c.uint("os.up"))
		case "read":
			v.Read = c.uint("os.read")
		case "procs":
			v.Procs = c.uint("os.procs")
		case "threads":
			v.Threads = c.uint("os.threads")
		case "files":
			v.Files = c.uint("os.files")
		case "mem_max":
			v.MemMax = c.uint("os.mem_max")
		case "oom":
			v.OOM = c.uint("os.oom")
		default:
			c.skip()
		}
	}
}

// words are the texts of nearly every transition; word allocates nothing for them.
var words = func() map[string]string {
	m := map[string]string{}
	add := func(list ...string) {
		for _, s := range list {
			m[s] = s
		}
	}
	for _, s := range hivebeat.States() {
		add(string(s))
	}
	for _, l := range []hivebeat.Live{hivebeat.Alive, hivebeat.Late, hivebeat.Lost, hivebeat.Left, hivebeat.Unverified} {
		add(string(l))
	}
	for _, c := range []hivebeat.Cause{hivebeat.CauseMissed, hivebeat.CauseSilent, hivebeat.CauseLoads, hivebeat.CauseExit, hivebeat.CauseDisconnect, hivebeat.CauseHive, hivebeat.CauseGoodbye, hivebeat.CauseOOM} {
		add(string(c))
	}
	for _, k := range []hivebeat.Kind{
		hivebeat.KindJoined, hivebeat.KindState, hivebeat.KindStalled, hivebeat.KindLooping, hivebeat.KindLate, hivebeat.KindLost,
		hivebeat.KindRecovered, hivebeat.KindLeft, hivebeat.KindRestarted, hivebeat.KindConflict, hivebeat.KindGap,
	} {
		add(string(k))
	}
	return m
}()

func word(b []byte) string {
	if s, ok := words[string(b)]; ok {
		return s
	}
	return string(b)
}
