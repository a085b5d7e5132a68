package admin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody  = 64 << 10
	maxIDs   = 1000
	maxLimit = 100
	maxBytes = 1 << 20

	defaultLimit = 50
	defaultBytes = 1 << 10
)

// invalid says what is wrong with a parameter.
type invalid struct{ field, value, want string }

func (e *invalid) Error() string { return fmt.Sprintf("%s is %q, want %s", e.field, e.value, e.want) }

// parse reads what a query and a form look like, and refuses names that are not
// known, so that none is ignored because it was misspelt.
func parse(raw string, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, &invalid{"the list of parameters", shorten(raw), "name=value, percent-encoded and separated by & (" + err.Error() + ")"}
	}
	for name := range values {
		if !slices.Contains(known, name) {
			want := "none"
			if len(known) > 0 {
				want = "one of " + strings.Join(known, ", ")
			}
			return nil, &invalid{"the name of a parameter", shorten(name), want}
		}
	}
	return values, nil
}

// shorten keeps answers from growing with the question.
func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// one returns the value of a parameter that may be there once, or def.
func one(values url.Values, name, def string) (string, error) {
	all := values[name]
	switch len(all) {
	case 0:
		return def, nil
	case 1:
		return all[0], nil
	}
	return "", &invalid{name, shorten(strings.Join(all, ", ")), "one value"}
}

// number returns the value of a parameter that is a number.
func number(values url.Values, name string, def, least, most int64) (int64, error) {
	text, err := one(values, name, strconv.FormatInt(def, 10))
	if err != nil {
		return 0, err
	}
	return parseNumber(name, text, least, most)
}

func parseNumber(name, text string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, &invalid{name, shorten(text), fmt.Sprintf("a whole number from %d to %d", least, most)}
	}
	return n, nil
}

const maxID = 1<<63 - 1

type deadQuery struct {
	after        int64
	limit, bytes int
}

func parseDead(raw string) (q deadQuery, err error) {
	values, err := parse(raw, "after", "limit", "bytes")
	if err != nil {
		return q, err
	}
	limit, err1 := number(values, "limit", defaultLimit, 1, maxLimit)
	bytes, err2 := number(values, "bytes", defaultBytes, 0, maxBytes)
	q.limit, q.bytes = int(limit), int(bytes)
	q.after, err = number(values, "after", 0, 0, maxID)
	return q, firstOf(err, err1, err2)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A pageQuery is where the list on the page begins, and what was done just now.
type pageQuery struct {
	after int64
	did   string
	n     int64
}

func parsePage(raw string) (q pageQuery, err error) {
	values, err := parse(raw, "after", "did", "n")
	if err != nil {
		return q, err
	}
	var err1, err2 error
	q.after, err = number(values, "after", 0, 0, maxID)
	q.n, err1 = number(values, "n", 0, 0, maxID)
	if q.did, err2 = one(values, "did", ""); err2 == nil && !slices.Contains([]string{"", "replay", "purge", "pause", "resume"}, q.did) {
		err2 = &invalid{"did", shorten(q.did), "replay, purge, pause or resume"}
	}
	return q, firstOf(err, err1, err2)
}

func parseIDs(raw string) ([]int64, error) {
	values, err := parse(raw, "id")
	if err != nil {
		return nil, err
	}
	all := values["id"]
	if len(all) == 0 {
		return nil, &invalid{"id", "", "the ID of a dead message (on the page: tick some first)"}
	}
	if len(all) > maxIDs {
		return nil, &invalid{"the number of id", strconv.Itoa(len(all)), fmt.Sprintf("at most %d", maxIDs)}
	}
	ids := make([]int64, len(all))
	for i, text := range all {
		if ids[i], err = parseNumber("id", text, 1, maxID); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// The times that a field of type datetime-local sends have no zone, and may have
// no seconds.
var layouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04"}

func parseBefore(raw string) (time.Time, error) {
	values, err := parse(raw, "before")
	if err != nil {
		return time.Time{}, err
	}
	text, err := one(values, "before", "")
	if err != nil {
		return time.Time{}, err
	}
	for _, layout := range layouts {
		if t, err := time.Parse(layout, text); err == nil && t.Unix() > 0 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, &invalid{"before", shorten(text), "a time after 1970, such as 2026-01-31T23:59:59Z, or without a zone in UTC"}
}

func parseTopic(raw string) (string, error) {
	values, err := parse(raw, "topic")
	if err != nil {
		return "", err
	}
	topic, err := one(values, "topic", "")
	if err == nil && topic == "" {
		err = &invalid{"topic", "", "the name of a topic"}
	}
	return topic, err
}

// readForm returns the body of a form as it came.
func readForm(w http.ResponseWriter, r *http.Request) (string, error) {
	if r.URL.RawQuery != "" {
		return "", &invalid{"the query", shorten(r.URL.RawQuery), "none: the parameters of a POST belong in its body"}
	}
	const form = "application/x-www-form-urlencoded"
	contentType := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil || media != form {
		return "", &failure{status: http.StatusUnsupportedMediaType, detail: fmt.Sprintf("Content-Type is %q, want %s", shorten(contentType), form)}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "", &failure{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the body has more than %d bytes, want at most that", maxBody)}
	}
	if err != nil {
		return "", &failure{status: http.StatusBadRequest, detail: "the body ended early: " + err.Error()}
	}
	return string(body), nil
}
