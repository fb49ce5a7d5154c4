package query

import (
	"fmt"
	"time"

	"github.com/beatfabric/hivebeat"
	"github.com/beatfabric/hivebeat/internal/index"
	"github.com/beatfabric/hivebeat/queen/api"
)

// One answers the verbs that need only one step: the summary, a hive, or a worker. The
// request was checked, and the view is settled.
func One(v *index.Index, verb string, r *api.Request, now time.Time) api.Answer {
	if verb == api.VerbSummary {
		s := Summary(v)
		return api.Answer{Summary: &s}
	}
	h := known(v, r.Hive)
	if h == nil {
		return notFound("no hive " + r.Hive + " is known")
	}
	if verb == api.VerbHive {
		return api.Answer{Hives: []api.HiveInfo{HiveInfo(v, h, now)}}
	}
	w := h.Worker(r.Worker)
	if w == nil {
		return notFound("no worker " + r.Worker + " is known on hive " + r.Hive)
	}
	a := api.Answer{Workers: []api.WorkerInfo{WorkerInfo(v, w, now)}}
	if why := Unsure(w, now); why != "" {
		a.Status.Unsure = []string{why}
	}
	return a
}

// ForgetHive answers the verb forget for a hive: with the hive as it is last shown, or why it must not be forgotten.
func ForgetHive(v *index.Index, hive string, now time.Time) api.Answer {
	h := known(v, hive)
	if h == nil {
		return notFound("no hive " + hive + " is known")
	}
	refused := func(format string, args ...any) api.Answer {
		return api.Answer{Error: &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf(format, args...)}}
	}
	if l := h.Live(); l != hivebeat.Lost && l != hivebeat.Left {
		return refused("hive %s is %s: only one that is lost or left can be forgotten", hive, l)
	}
	for _, w := range h.Workers() {
		if live, _, _ := v.Shown(w, now); live == hivebeat.Alive {
			return refused("worker %s of %s is alive, though its hive is %s: it cannot be forgotten", w.ID(), hive, h.Live())
		}
	}
	return api.Answer{Hives: []api.HiveInfo{HiveInfo(v, h, now)}}
}

// Forget answers the verb forget for a GPU: with the GPU that the hive is to remove, or why it must not.
func Forget(v *index.Index, r *api.Request) api.Answer {
	h := known(v, r.Hive)
	if h == nil {
		return notFound("no hive " + r.Hive + " is known")
	}
	refused := func(format string, args ...any) api.Answer {
		return api.Answer{Error: &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf(format, args...)}}
	}
	for i := range h.Head().GPUs {
		g := &h.Head().GPUs[i]
		switch {
		case g.UUID != r.GPU:
			continue
		case g.Condition() != hivebeat.GPUGone && g.Action != hivebeat.ActionReplace:
			return refused("GPU %d of %s is %s: only a GPU that is gone, or must be replaced, can be forgotten", g.Index, r.Hive, g.Condition())
		case !h.Up():
			return refused("hive %s is %s: only a hive that is there can forget a GPU", r.Hive, h.Live())
		case !hivebeat.ValidGPU(g.UUID):
			return refused("GPU %d of %s has a UUID that cannot be sent", g.Index, r.Hive)
		}
		f := faultOf(g)
		return api.Answer{Forgot: &f}
	}
	return notFound("no GPU " + r.GPU + " is known on hive " + r.Hive)
}

func notFound(message string) api.Answer {
	return api.Answer{Error: &api.Error{Code: api.CodeNotFound, Message: message}}
}
