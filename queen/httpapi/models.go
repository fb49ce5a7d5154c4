package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"

	"github.com/beatfabric/hivebeat/queen/api"
)

// Every tool that speaks OpenAI's API reads GET /v1/models, so this route has the same
// shape, with the facts of hivebeat as further keys.

const pathModels = "/v1/models"

// maxModelPages bounds how many pages of models one answer collects.
const maxModelPages = 50

// modelList is the JSON of /v1/models.
type modelList struct {
	Object string      `json:"object"` // list
	Data   []modelItem `json:"data"`
	Status api.Status  `json:"status"`
}

// modelItem is one model in a modelList. Created is 0: when a model was made is not known here.
type modelItem struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // model
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	api.ModelInfo
}

func itemOf(m api.ModelInfo) modelItem {
	return modelItem{ID: m.Model, Object: "model", OwnedBy: "hivebeat", ModelInfo: m}
}

// models lists the models that a worker can serve now, or with all=true those of every worker.
func (s *Server) models(w http.ResponseWriter, q *http.Request) {
	glob, all, err := modelQuery(q.URL.RawQuery)
	if err != nil {
		s.refuse(w, q, http.StatusBadRequest, api.CodeBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	out := modelList{Object: "list", Data: []modelItem{}}
	r := api.Request{Filter: api.Filter{Model: glob}, Limit: 1000}
	for range maxModelPages {
		a := s.backend.Answer(ctx, api.VerbModels, r)
		if a.Error != nil {
			s.write(w, q, 0, a)
			return
		}
		out.Status = a.Status
		for _, m := range a.Models {
			if all || m.Able > 0 {
				out.Data = append(out.Data, itemOf(m))
			}
		}
		if r.After = a.Next; r.After == "" {
			break
		}
	}
	s.writeAny(w, q, out)
}

// model answers for one model, whose name may contain slashes.
func (s *Server) model(w http.ResponseWriter, q *http.Request) {
	name := q.PathValue("model")
	if _, _, err := modelQuery(q.URL.RawQuery); err != nil {
		s.refuse(w, q, http.StatusBadRequest, api.CodeBadRequest, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), askTimeout)
	defer cancel()
	for r := (api.Request{Filter: api.Filter{Model: name}}); ; {
		a := s.backend.Answer(ctx, api.VerbModels, r) // a name with * or ? is a glob too
		if a.Error != nil {
			s.write(w, q, 0, a)
			return
		}
		for _, m := range a.Models {
			if m.Model == name {
				s.writeAny(w, q, itemOf(m))
				return
			}
		}
		if r.After = a.Next; r.After == "" {
			break
		}
	}
	s.refuse(w, q, http.StatusNotFound, api.CodeNotFound, fmt.Sprintf("no worker has the model %.256q", name))
}

func modelQuery(query string) (glob string, all bool, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", false, fmt.Errorf("the query cannot be read: %w", err)
	}
	for name, v := range values {
		switch {
		case len(v) > 1:
			return "", false, fmt.Errorf("%.64q is given twice", name)
		case name == "model":
			glob = v[0]
		case name == "all":
			if all, err = strconv.ParseBool(v[0]); v[0] != "" && err != nil {
				return "", false, fmt.Errorf("all is neither true nor false")
			}
			all = all || v[0] == "" // ?all
		default:
			return "", false, fmt.Errorf("unknown parameter %.64q; this path takes model and all", name)
		}
	}
	return glob, all, nil
}

func (s *Server) writeAny(w http.ResponseWriter, q *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.log.Error("cannot encode an answer", slog.String("path", q.URL.Path), slog.Any("err", err))
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	writeJSON(w, q, http.StatusOK, b)
}
