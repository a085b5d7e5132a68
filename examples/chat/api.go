package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"sync/atomic"

	"github.com/evenkeel-go/evenkeel/ratelimit"
	"github.com/evenkeel-go/evenkeel/ratelimit/httplimit"
)

const (
	userHeader = "X-User" // a real service takes the user from its own authentication
	maxText    = 4000     // bytes of one message
	maxUsers   = 1 << 16  // whose limits are remembered at once
)

// API is the HTTP face of the service.
type API struct {
	store    *Store
	reader   *Reader
	webhooks *Webhooks
	switches *Switches
	limit    ratelimit.Limit // of one user's posts
	log      *slog.Logger

	offered   atomic.Int64 // posts that arrived
	admitted  atomic.Int64 // posts that the limit let through
	committed atomic.Int64 // posts that are stored
}

// Register adds the API's routes to mux.
func (a *API) Register(mux *http.ServeMux) error {
	post, err := a.limited(http.HandlerFunc(a.post))
	if err != nil {
		return err
	}
	mux.Handle("POST /channels/{id}/messages", post)
	mux.HandleFunc("GET /channels/{id}/messages", a.messages)
	mux.HandleFunc("GET /feed", a.feed)
	mux.HandleFunc("GET /search", a.search)
	return nil
}

// limited puts the per-user limit before next: a user over it gets a 429 that says
// when to come back.
//
// pattern: ratelimit
func (a *API) limited(next http.Handler) (http.Handler, error) {
	perUser, err := ratelimit.NewKeyed[string](a.limit, ratelimit.KeyedOptions{Capacity: maxUsers})
	if err != nil {
		return nil, err
	}
	limit, err := httplimit.New(perUser, httplimit.Options{
		Name: "posts",
		Key: func(r *http.Request) (string, error) {
			user := r.Header.Get(userHeader)
			if user == "" {
				return "", fmt.Errorf("the header %s is missing", userHeader)
			}
			return user, nil
		},
	})
	if err != nil {
		return nil, err
	}
	limitedNext := limit(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.offered.Add(1)
		if a.switches.RateLimit.Load() {
			limitedNext.ServeHTTP(w, r)
		} else {
			next.ServeHTTP(w, r)
		}
	}), nil
}

// post answers POST /channels/{id}/messages with 201 and the stored message. What
// it has acknowledged survives a crash, and so does the webhook.
func (a *API) post(w http.ResponseWriter, r *http.Request) {
	a.admitted.Add(1)
	channel, user := r.PathValue("id"), r.Header.Get(userHeader)
	var body struct {
		Text string `json:"text"`
	}
	if err := errors.Join(checkName("channel", channel), checkName(userHeader, user)); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 8*maxText) // a byte may take 6 in JSON
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, fmt.Sprintf(`body: %v, expected {"text": "…"}`, err))
		return
	}
	if body.Text == "" || len(body.Text) > maxText { // that it is UTF-8 the decoder has seen to
		fail(w, http.StatusBadRequest, fmt.Sprintf("text has %d bytes, expected 1 to %d", len(body.Text), maxText))
		return
	}
	relay := a.switches.Outbox.Load()
	msg, err := a.store.Post(r.Context(), channel, user, body.Text, relay)
	if err != nil {
		a.fault(w, r, err)
		return
	}
	a.committed.Add(1)
	a.reader.Wrote(channel)
	if !relay {
		a.webhooks.SendOnce(msg)
	}
	reply(w, http.StatusCreated, msg)
}

// messages answers GET /channels/{id}/messages?before=…&limit=….
func (a *API) messages(w http.ResponseWriter, r *http.Request) {
	channel := r.PathValue("id")
	before, err1 := intParam(r, "before", 0, 1, 1<<62)
	limit, err2 := intParam(r, "limit", 50, 1, maxPage)
	if err := errors.Join(checkName("channel", channel), err1, err2); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	page, err := a.reader.Page(r.Context(), channel, before, int(limit))
	if err != nil {
		a.fault(w, r, err)
		return
	}
	reply(w, http.StatusOK, pageOf(page, int(limit)))
}

// feed answers GET /feed?before=…&limit=… with the newest messages of all channels.
func (a *API) feed(w http.ResponseWriter, r *http.Request) { a.scattered(w, r, "") }

// search answers GET /search?q=…&before=…&limit=….
func (a *API) search(w http.ResponseWriter, r *http.Request) {
	q := r.FormValue("q")
	if q == "" || len(q) > 200 {
		fail(w, http.StatusBadRequest, fmt.Sprintf("q has %d bytes, expected 1 to 200", len(q)))
		return
	}
	a.scattered(w, r, q)
}

func (a *API) scattered(w http.ResponseWriter, r *http.Request, text string) {
	before, err1 := intParam(r, "before", 0, 1, 1<<62)
	limit, err2 := intParam(r, "limit", 50, 1, maxPage)
	if err := errors.Join(err1, err2); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	page, err := a.reader.Search(r.Context(), Filter{Text: text, Before: before, Limit: int(limit)})
	if err != nil {
		a.fault(w, r, err)
		return
	}
	reply(w, http.StatusOK, pageOf(page, int(limit)))
}

// Page is a page of messages. Next is the value of before for the page after it. It
// is empty after a page that is not full, since that is the last.
type Page struct {
	Messages []Message `json:"messages"`
	Next     string    `json:"next,omitempty"`
}

func pageOf(messages []Message, limit int) Page {
	p := Page{Messages: messages}
	if p.Messages == nil {
		p.Messages = []Message{} // [] and not null
	}
	if len(messages) == limit {
		p.Next = strconv.FormatInt(messages[limit-1].ID, 10)
	}
	return p
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func checkName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s is %q, expected 1 to 64 of a-z, A-Z, 0-9, _ and -", what, name)
	}
	return nil
}

func intParam(r *http.Request, name string, absent, least, most int64) (int64, error) {
	text := r.FormValue(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s is %q, expected a number from %d to %d", name, text, least, most)
	}
	return n, nil
}

// fault answers an error that is not the client's.
func (a *API) fault(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the client has gone
	}
	a.log.Error("request failed", "path", r.URL.Path, "err", err)
	fail(w, http.StatusInternalServerError, "internal error")
}

func fail(w http.ResponseWriter, status int, message string) {
	reply(w, status, map[string]string{"error": message})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}
