package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// A failure is an error that knows its status.
type failure struct {
	status int
	detail string
}

func (f *failure) Error() string { return f.detail }

// A problem is RFC 9457's, of the type that is only a status.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
}

func problemOf(err error) problem {
	p := problem{Status: http.StatusInternalServerError, Detail: err.Error()}
	if f, ok := errors.AsType[*failure](err); ok {
		p.Status = f.status
	} else if i, ok := errors.AsType[*invalid](err); ok {
		p.Status, p.Field = http.StatusBadRequest, i.field
	} else if errors.Is(err, outbox.ErrInvalid) {
		p.Status = http.StatusBadRequest
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// fail answers with an error. If the client has gone, nobody hears it.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if wantsHTML(r) {
		if body, err := render("problem", p); err == nil {
			write(w, "text/html; charset=utf-8", p.Status, body)
			return
		}
	}
	body, err := json.Marshal(p)
	if err != nil { // cannot be
		w.WriteHeader(p.Status)
		return
	}
	write(w, "application/problem+json", p.Status, append(body, '\n'))
}

// wantsHTML reports that a browser shows the answer to a person. Programs do not
// ask for text/html by name.
func wantsHTML(r *http.Request) bool {
	return strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/html")
}

func write(w http.ResponseWriter, contentType string, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone
}

func writeJSON(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	write(w, "application/json", http.StatusOK, b.Bytes())
	return nil
}

// stats is outbox.Stats in JSON.
type stats struct {
	Ready      int64   `json:"ready"`
	Waiting    int64   `json:"waiting"`
	ParkedKeys int64   `json:"parked_keys"`
	Dead       int64   `json:"dead"`
	Oldest     float64 `json:"oldest_seconds"`
	Leases     []lease `json:"leases"`
	Topics     []topic `json:"topics"`
	Process    process `json:"process"`
}

type lease struct {
	Owner   string  `json:"owner"`
	Epoch   int64   `json:"epoch"`
	Buckets int     `json:"buckets"`
	Left    float64 `json:"left_seconds"`
}

type topic struct {
	Topic   string `json:"topic"`
	Ready   int64  `json:"ready"`
	Waiting int64  `json:"waiting"`
	Dead    int64  `json:"dead"`
	Paused  bool   `json:"paused"`
}

// process is what this process has counted since it began.
type process struct {
	Delivered int64   `json:"delivered"`
	Failed    int64   `json:"failed"`
	Rate      float64 `json:"delivered_per_second"`
}

func statsOf(s outbox.Stats) stats {
	out := stats{
		Ready: s.Ready, Waiting: s.Waiting, ParkedKeys: s.ParkedKeys, Dead: s.Dead, Oldest: s.Oldest.Seconds(),
		Leases: make([]lease, len(s.Leases)), Topics: make([]topic, len(s.Topics)),
		Process: process{s.Delivered, s.Failed, s.Rate},
	}
	for i, l := range s.Leases {
		out.Leases[i] = lease{l.Owner, l.Epoch, l.Buckets, l.Left.Seconds()}
	}
	for i, t := range s.Topics {
		out.Topics[i] = topic(t)
	}
	return out
}

// dead is a page of dead messages in JSON.
type dead struct {
	Messages []letter `json:"messages"`
	Next     int64    `json:"next,omitempty"`
}

func deadOf(letters []letter, more bool) dead {
	d := dead{Messages: letters}
	if letters == nil {
		d.Messages = []letter{}
	}
	if more {
		d.Next = letters[len(letters)-1].ID
	}
	return d
}
