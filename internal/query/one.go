package query

import (
	"time"

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

func notFound(message string) api.Answer {
	return api.Answer{Error: &api.Error{Code: api.CodeNotFound, Message: message}}
}
