package admin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

// Handler returns the page and its JSON for the outbox in a database; see the
// package for what it answers. It must stand behind the authentication of the
// caller. Mount it with http.StripPrefix. Statements end with the context of the
// request. Returns an error if box or db is nil; it does not ask the database.
// The handler is safe for concurrent use by multiple goroutines.
func Handler(box *outbox.Outbox, db *sql.DB) (http.Handler, error) {
	switch {
	case box == nil:
		return nil, errors.New("admin: box is nil, want one from outbox.New")
	case db == nil:
		return nil, errors.New("admin: db is nil, want the database of the outbox")
	}
	return newHandler(database{box, db}), nil
}

// source is what the handler asks of an outbox.
type source interface {
	Stats(ctx context.Context) (outbox.Stats, error)
	// Dead returns up to limit dead messages with greater ids, each with so
	// many bytes of its payload, and whether there are more.
	Dead(ctx context.Context, after int64, limit, bytes int) (letters []letter, more bool, err error)
	Replay(ctx context.Context, ids []int64) (int64, error)
	Purge(ctx context.Context, before time.Time) (int64, error)
	Pause(ctx context.Context, topic string) error
	Resume(ctx context.Context, topic string) error
}

type handler struct {
	source source
	origin *http.CrossOriginProtection
	routes map[string]route
}

// A route answers requests of one method for one path. parameters is the query
// or the body, as it came. An error is answered as a problem.
type route struct {
	post  bool
	serve func(w http.ResponseWriter, r *http.Request, parameters string) error
}

func newHandler(s source) http.Handler {
	h := &handler{source: s, origin: http.NewCrossOriginProtection()}
	h.routes = map[string]route{
		"":       {false, h.page},
		"stats":  {false, h.stats},
		"dead":   {false, h.dead},
		"replay": {true, h.replay},
		"purge":  {true, h.purge},
		"pause":  {true, h.pause},
		"resume": {true, h.resume},
	}
	return h
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	if err := h.serve(w, r); err != nil {
		fail(w, r, err)
	}
}

// protect sets the headers of every answer. The referrer policy is not
// "no-referrer": browsers would then send "Origin: null" with our own forms, and
// over plain HTTP that is all we have to tell them from another site's.
func protect(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
}

func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	if slashless(r) {
		return movePermanently(w, r)
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	route, ok := h.routes[path]
	if !ok {
		return &failure{status: http.StatusNotFound, detail: fmt.Sprintf("path is %q, want none or one of stats, dead, replay, purge, pause, resume", path)}
	}
	if !route.post {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			return wrongMethod(w, r, "GET, HEAD")
		}
		return route.serve(w, r, r.URL.RawQuery)
	}
	if r.Method != http.MethodPost {
		return wrongMethod(w, r, "POST")
	}
	if err := h.origin.Check(r); err != nil {
		return &failure{status: http.StatusForbidden, detail: err.Error() + ": want a request from this page, or from a program"}
	}
	body, err := readForm(w, r)
	if err != nil {
		return err
	}
	return route.serve(w, r, body)
}

// slashless reports that the page was asked for by a name without a slash at its
// end, from which relative links would lead elsewhere. StripPrefix has taken the
// name out of the URL.
func slashless(r *http.Request) bool {
	name, _, _ := strings.Cut(r.RequestURI, "?")
	return r.URL.Path == "" && name != "" && !strings.HasSuffix(name, "/")
}

func movePermanently(w http.ResponseWriter, r *http.Request) error {
	name, query, found := strings.Cut(r.RequestURI, "?")
	to := "./" + name[strings.LastIndexByte(name, '/')+1:] + "/"
	if found {
		to += "?" + query
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusPermanentRedirect)
	return nil
}

func wrongMethod(w http.ResponseWriter, r *http.Request, allow string) error {
	w.Header().Set("Allow", allow)
	return &failure{status: http.StatusMethodNotAllowed, detail: fmt.Sprintf("method is %q, want %s", r.Method, strings.ReplaceAll(allow, ", ", " or "))}
}

func (h *handler) stats(w http.ResponseWriter, r *http.Request, parameters string) error {
	if _, err := parse(parameters); err != nil {
		return err
	}
	st, err := h.source.Stats(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, statsOf(st))
}

func (h *handler) dead(w http.ResponseWriter, r *http.Request, parameters string) error {
	q, err := parseDead(parameters)
	if err != nil {
		return err
	}
	letters, more, err := h.source.Dead(r.Context(), q.after, q.limit, q.bytes)
	if err != nil {
		return err
	}
	return writeJSON(w, deadOf(letters, more))
}

func (h *handler) replay(w http.ResponseWriter, r *http.Request, parameters string) error {
	ids, err := parseIDs(parameters)
	if err != nil {
		return err
	}
	n, err := h.source.Replay(r.Context(), ids)
	if err != nil {
		return err
	}
	return done(w, r, map[string]any{"replayed": n}, url.Values{"did": {"replay"}, "n": {fmt.Sprint(n)}})
}

func (h *handler) purge(w http.ResponseWriter, r *http.Request, parameters string) error {
	before, err := parseBefore(parameters)
	if err != nil {
		return err
	}
	n, err := h.source.Purge(r.Context(), before)
	if err != nil {
		return err
	}
	return done(w, r, map[string]any{"purged": n}, url.Values{"did": {"purge"}, "n": {fmt.Sprint(n)}})
}

func (h *handler) pause(w http.ResponseWriter, r *http.Request, parameters string) error {
	return h.setPaused(w, r, parameters, "pause", h.source.Pause)
}

func (h *handler) resume(w http.ResponseWriter, r *http.Request, parameters string) error {
	return h.setPaused(w, r, parameters, "resume", h.source.Resume)
}

func (h *handler) setPaused(w http.ResponseWriter, r *http.Request, parameters, name string, do func(context.Context, string) error) error {
	topic, err := parseTopic(parameters)
	if err != nil {
		return err
	}
	if err := do(r.Context(), topic); err != nil {
		return err
	}
	return done(w, r, map[string]any{"topic": topic, "paused": name == "pause"}, url.Values{"did": {name}})
}

// done answers a change: a browser goes back to the page, so that to load it
// again does not repeat the change.
func done(w http.ResponseWriter, r *http.Request, answer map[string]any, notice url.Values) error {
	if !wantsHTML(r) {
		return writeJSON(w, answer)
	}
	w.Header().Set("Location", "./?"+notice.Encode())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
