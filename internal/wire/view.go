// Package wire parses hivebeat's messages. A scan makes any bytes safe to read, and
// parsers check every rule of docs/PROTOCOL.md without allocating. A parser returns a
// view: numbers by value, texts as slices into the message. Nothing in a view may be
// kept longer than the message. Update copies changed values into a long-lived value
// and allocates only for those.
//
// github.com/vmihailenco/msgpack/v5 is the reference: the fuzz tests compare each
// parser with it.
package wire

import (
	"slices"

	"github.com/beatfabric/hivebeat"
)

// Raw is a checked msgpack array or map within a message.
type Raw struct {
	b []byte // the elements, without the header
	n int    // their number; pairs for a map
}

// Len returns the number of elements, or pairs.
func (r Raw) Len() int { return r.n }

// FactsView is the view of hivebeat.Facts.
type FactsView struct {
	Inc, Every, Quiet, PID, RW, Slots, Need, Ctx, KVCap  uint64
	State, Reason, NS, Host, Conn, Model, Endpoint, Data []byte
	GPUs                                                 Raw // of strings
	Labels                                               Raw // of string pairs
	Engine, Ver, Exit                                    []byte
	LoRA                                                 LoRAView
	Cold                                                 Raw // of strings
	Volatile
}

// Volatile are the facts that may change with every beat.
type Volatile struct {
	Seq, VRAM, Busy, Queue, Done uint64
	Tokens, Probed               uint64
	Boot                         uint64 // only in a beat
	Sent                         int64
	KV                           float64
	HasKV                        bool
}

// LoRAView is the view of a hivebeat.LoRA.
type LoRAView struct {
	Max      uint64
	On, Wait Raw // of strings
}

// Update copies the values of v to f.
func (v *Volatile) Update(f *hivebeat.Facts) {
	f.Seq, f.VRAM, f.Busy, f.Queue, f.Done, f.Sent = v.Seq, v.VRAM, v.Busy, v.Queue, v.Done, v.Sent
	f.Tokens, f.Probed = v.Tokens, hivebeat.Millis(v.Probed)
	switch {
	case !v.HasKV:
		f.KV = nil
	case f.KV == nil || *f.KV != v.KV: // what it points to is shared, and never changes
		kv := v.KV
		f.KV = &kv
	}
}

// BeatView is the view of a hivebeat.Beat.
type BeatView struct {
	Hive, Worker []byte
	FactsView
}

// RecordView is the view of a hivebeat.Record. If Same is set, the record differs from
// the one at its place in the memo's message at most in Volatile, Age, Since, Closed,
// Restarts, Looping, Rate, TPS and Proc. The view then holds only these, Same and Worker.
type RecordView struct {
	Same                bool
	mark                mark
	Worker, Live, Cause []byte
	N, Missed, Rival    uint64
	RivalAt             PlaceView
	Addr, Fault         []byte
	On                  Raw // of strings
	Ended               uint64
	Stalled, Closed     bool
	Restarts            uint64
	Looping             bool
	Rate, TPS           float64
	Age, Since          uint64
	Tr                  []hivebeat.Transition // own memory, but reused by the next parse
	Proc                hivebeat.Proc
	FactsView
}

// SnapshotView is the view of a hivebeat.Snapshot. Its slices are reused by the
// next parse into it.
type SnapshotView struct {
	Hive, Bye, Conn              []byte
	Inc, Every, Seq, Page, Pages uint64
	RW, PID, VRAMBudget, GPUN    uint64
	Sent                         int64
	Warm                         bool
	Labels, Collect              Raw // of string pairs
	Host                         HostView
	GPUs                         []GPUView
	Stats                        hivebeat.Stats
	GPUTr                        []hivebeat.GPUTransition // own memory, but reused by the next parse
	Workers                      []RecordView

	rows    rows         // of the current parse
	nothing SnapshotMemo // for a parse without a memo: stays empty
}

// PlaceView is the view of a hivebeat.Place.
type PlaceView struct {
	Host, Conn, Addr []byte
	PID              uint64
}

// HostView is the view of a hivebeat.Host.
type HostView struct {
	Name, OS, Arch, Kernel, Driver               []byte
	CPUs, MemTotal, MemUsed, Uptime              uint64
	CacheTotal, CacheFree, StoreTotal, StoreFree uint64
	Load1, CPU                                   float64
}

// GPUView is the view of a hivebeat.GPU.
type GPUView struct {
	UUID, Name, Bus, Err                       []byte
	State, Cause, Evidence, Action, OrphanOf   []byte
	Index, Total, Used, Ours, Util, Power, Age uint64
	Orphaned, Unattributed, Reserved, Since    uint64
	Boots                                      uint64
	Temp                                       int64
	Unified, MIG                               bool
	Instances                                  []InstanceView
}

// InstanceView is the view of a hivebeat.GPUInstance.
type InstanceView struct {
	UUID, Profile                                       []byte
	GI, CI                                              uint64
	Total, Used, Ours, Orphaned, Unattributed, Reserved uint64
}

// set sets *dst to the text of b, and allocates only if it differs.
func set[T ~string](dst *T, b []byte) {
	if string(*dst) != string(b) {
		*dst = T(b)
	}
}

// Update copies the values of v to f. It allocates only for texts that changed.
func (v *FactsView) Update(f *hivebeat.Facts) {
	f.Inc, f.Every, f.Quiet, f.PID, f.RW = v.Inc, hivebeat.Millis(v.Every), hivebeat.Millis(v.Quiet), v.PID, hivebeat.Millis(v.RW)
	f.Slots, f.Need, f.Ctx, f.KVCap = v.Slots, v.Need, v.Ctx, v.KVCap
	v.Volatile.Update(f)
	set(&f.State, v.State)
	set(&f.Reason, v.Reason)
	set(&f.NS, v.NS)
	set(&f.Host, v.Host)
	set(&f.Conn, v.Conn)
	set(&f.Model, v.Model)
	set(&f.Endpoint, v.Endpoint)
	f.GPUs = v.GPUs.UpdateStrings(f.GPUs)
	f.Labels = v.Labels.UpdateMap(f.Labels)
	set(&f.Engine, v.Engine)
	set(&f.Ver, v.Ver)
	set(&f.Exit, v.Exit)
	f.LoRA.Max, f.LoRA.On, f.LoRA.Wait = v.LoRA.Max, v.LoRA.On.UpdateStrings(f.LoRA.On), v.LoRA.Wait.UpdateStrings(f.LoRA.Wait)
	f.Cold = v.Cold.UpdateStrings(f.Cold)
	if !slices.Equal(f.Data, v.Data) {
		f.Data = slices.Clone(v.Data)
	}
}

// Update copies the values of v to b, as FactsView.Update does.
func (v *BeatView) Update(b *hivebeat.Beat) {
	b.V = hivebeat.Version
	set(&b.Hive, v.Hive)
	set(&b.Worker, v.Worker)
	v.FactsView.Update(&b.Facts)
	b.Boot = v.Boot
}

// Update copies the values of v to r, as FactsView.Update does. If Same is set, r must
// hold the values of the memo's message.
func (v *RecordView) Update(r *hivebeat.Record) {
	r.Age, r.Since, r.Closed, r.Proc = hivebeat.Millis(v.Age), hivebeat.Millis(v.Since), v.Closed, v.Proc
	r.Restarts, r.Looping, r.Rate, r.TPS = v.Restarts, v.Looping, v.Rate, v.TPS
	if v.Same {
		v.Volatile.Update(&r.Facts)
		return
	}
	set(&r.Worker, v.Worker)
	set(&r.Live, v.Live)
	set(&r.Cause, v.Cause)
	r.N, r.Missed, r.Stalled, r.Rival, r.Ended = v.N, v.Missed, v.Stalled, v.Rival, v.Ended
	v.RivalAt.Update(&r.RivalAt)
	set(&r.Addr, v.Addr)
	r.On = v.On.UpdateStrings(r.On)
	set(&r.Fault, v.Fault)
	if !slices.Equal(r.Tr, v.Tr) {
		r.Tr = slices.Clone(v.Tr)
	}
	v.FactsView.Update(&r.Facts)
}

// Update copies the values of v to p, as FactsView.Update does.
func (v *PlaceView) Update(p *hivebeat.Place) {
	p.PID = v.PID
	set(&p.Host, v.Host)
	set(&p.Conn, v.Conn)
	set(&p.Addr, v.Addr)
}

// Note sets p to the place of incarnation inc, as a message of that incarnation reports
// it. The address, which no sender knows, is kept while the connection is the same.
func (v PlaceView) Note(p *hivebeat.Place, inc uint64) {
	addr := p.Addr
	if p.Inc != inc || p.Conn != string(v.Conn) {
		addr = ""
	}
	v.Update(p)
	p.Inc, p.Addr = inc, addr
}

// Place returns where the sender of a beat runs.
func (v *FactsView) Place() PlaceView { return PlaceView{Host: v.Host, Conn: v.Conn, PID: v.PID} }

// Place returns where the hive runs.
func (v *SnapshotView) Place() PlaceView {
	return PlaceView{Host: v.Host.Name, Conn: v.Conn, PID: v.PID}
}

// Update copies the values of v to h, as FactsView.Update does.
func (v *HostView) Update(h *hivebeat.Host) {
	set(&h.Name, v.Name)
	set(&h.OS, v.OS)
	set(&h.Arch, v.Arch)
	set(&h.Kernel, v.Kernel)
	set(&h.Driver, v.Driver)
	h.CacheTotal, h.CacheFree, h.StoreTotal, h.StoreFree = v.CacheTotal, v.CacheFree, v.StoreTotal, v.StoreFree
	h.CPUs, h.MemTotal, h.MemUsed, h.Uptime, h.Load1, h.CPU = v.CPUs, v.MemTotal, v.MemUsed, v.Uptime, v.Load1, v.CPU
}

// Update copies the values of v to g, as FactsView.Update does.
func (v *GPUView) Update(g *hivebeat.GPU) {
	set(&g.UUID, v.UUID)
	set(&g.Name, v.Name)
	set(&g.Err, v.Err)
	g.Index, g.Total, g.Used, g.Ours, g.Util, g.Power = v.Index, v.Total, v.Used, v.Ours, v.Util, v.Power
	g.Age, g.Temp = hivebeat.Millis(v.Age), v.Temp
	set(&g.Bus, v.Bus)
	set(&g.State, v.State)
	set(&g.Cause, v.Cause)
	set(&g.Evidence, v.Evidence)
	set(&g.Action, v.Action)
	set(&g.OrphanOf, v.OrphanOf)
	g.Orphaned, g.Unattributed, g.Reserved, g.Since, g.Boots = v.Orphaned, v.Unattributed, v.Reserved, hivebeat.Millis(v.Since), v.Boots
	g.Unified, g.MIG = v.Unified, v.MIG
	// An answer may still hold the instances, so that a change makes new ones.
	if !slices.EqualFunc(g.Instances, v.Instances, func(a hivebeat.GPUInstance, b InstanceView) bool { return b.Is(&a) }) {
		g.Instances = make([]hivebeat.GPUInstance, len(v.Instances))
		for i := range v.Instances {
			v.Instances[i].update(&g.Instances[i])
		}
	}
}

// Is reports whether i has the values of v.
func (v *InstanceView) Is(i *hivebeat.GPUInstance) bool {
	return v.Total == i.Total && v.Used == i.Used && v.Ours == i.Ours && v.Orphaned == i.Orphaned && v.Unattributed == i.Unattributed &&
		v.Reserved == i.Reserved && v.GI == i.GI && v.CI == i.CI && i.UUID == string(v.UUID) && i.Profile == string(v.Profile)
}

func (v *InstanceView) update(i *hivebeat.GPUInstance) {
	i.Total, i.Used, i.Ours, i.Orphaned, i.Unattributed, i.Reserved = v.Total, v.Used, v.Ours, v.Orphaned, v.Unattributed, v.Reserved
	i.GI, i.CI, i.UUID, i.Profile = v.GI, v.CI, string(v.UUID), string(v.Profile)
}

// UpdateHead copies all values of v except its workers to s, as FactsView.Update does.
func (v *SnapshotView) UpdateHead(s *hivebeat.Snapshot) {
	s.V, s.Inc, s.Every, s.Seq, s.Sent = hivebeat.Version, v.Inc, hivebeat.Millis(v.Every), v.Seq, v.Sent
	s.Warm, s.Page, s.Pages, s.Stats = v.Warm, v.Page, v.Pages, v.Stats
	set(&s.Hive, v.Hive)
	set(&s.Bye, v.Bye)
	set(&s.Conn, v.Conn)
	s.RW, s.PID = hivebeat.Millis(v.RW), v.PID
	s.VRAMBudget, s.GPUN = v.VRAMBudget, v.GPUN
	s.GPUTr = s.GPUTr[:0]
	if len(v.GPUTr) > 0 {
		s.GPUTr = slices.Clone(v.GPUTr)
	}
	s.Labels = v.Labels.UpdateMap(s.Labels)
	s.Collect = v.Collect.UpdateMap(s.Collect)
	v.Host.Update(&s.Host)
	s.GPUs = slices.Grow(s.GPUs[:0], len(v.GPUs))[:len(v.GPUs)]
	for i := range v.GPUs {
		v.GPUs[i].Update(&s.GPUs[i])
	}
}

// UpdateStrings returns the strings of r, or old itself if they are equal.
func (r Raw) UpdateStrings(old []string) []string {
	if r.n == len(old) {
		same, b := true, r.b
		for i := 0; i < r.n && same; i++ {
			var s []byte
			s, b = takeStr(b)
			same = string(s) == old[i]
		}
		if same {
			return old
		}
	}
	out, b := make([]string, r.n), r.b
	for i := range out {
		var s []byte
		s, b = takeStr(b)
		out[i] = string(s)
	}
	return out
}

// UpdateMap returns the pairs of r, or old itself if they are equal. It never writes to
// old, which may have been passed on.
func (r Raw) UpdateMap(old map[string]string) map[string]string {
	if r.n == 0 {
		return nil
	}
	if r.n == len(old) {
		same, b := true, r.b
		for i := 0; i < r.n && same; i++ {
			var k, s []byte
			k, b = takeStr(b)
			s, b = takeStr(b)
			was, ok := old[string(k)]
			same = ok && was == string(s)
		}
		if same {
			return old
		}
	}
	out := make(map[string]string, r.n)
	for k, s := range r.Pairs {
		out[string(k)] = string(s)
	}
	return out
}

// Pairs yields the pairs of a map of strings. The slices point into the message.
func (r Raw) Pairs(yield func(k, v []byte) bool) {
	b := r.b
	for range r.n {
		var k, v []byte
		k, b = takeStr(b)
		v, b = takeStr(b)
		if !yield(k, v) {
			return
		}
	}
}
