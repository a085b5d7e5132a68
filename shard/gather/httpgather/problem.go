package httpgather

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/evenkeel-go/evenkeel/shard/gather"
)

// problem is the body of RFC 9457 that answers a request whose query failed before
// its first row.
type problem struct {
	Title   string   `json:"title"`
	Status  int      `json:"status"`
	Detail  string   `json:"detail,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

func writeProblem(w http.ResponseWriter, p problem) error {
	p.Title = http.StatusText(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		return err
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name) // meant for the rows
	}
	h.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_, err = w.Write(body)
	return err
}

// public is what the client may know of an error, by the hook and where that is silent by
// default.
func public(err error, hook func(error) (int, string)) problem {
	p := problem{Status: http.StatusInternalServerError, Detail: "internal error"}
	partial, isPartial := errors.AsType[*gather.PartialError](err)
	switch {
	case isPartial:
		p.Status, p.Detail = http.StatusServiceUnavailable, "some shards did not answer"
		for _, r := range partial.Missing {
			p.Missing = append(p.Missing, r.String())
		}
	case errors.Is(err, gather.ErrBadCursor):
		p.Status, p.Detail = http.StatusBadRequest, "the cursor is not valid"
	case errors.Is(err, gather.ErrForeignCursor):
		p.Status, p.Detail = http.StatusBadRequest, "the cursor is of another query"
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Detail = http.StatusServiceUnavailable, "the answer took too long"
	}
	if hook != nil {
		status, message := hook(err)
		if status >= 400 && status <= 599 {
			p.Status = status
		}
		if message != "" {
			p.Detail = message
		}
	}
	return p
}
