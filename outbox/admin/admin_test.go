package admin_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/admin"
	"github.com/evenkeel-go/evenkeel/outbox/sqlite"
)

// A fake answers what it is told to, and notes what it was asked.
type fake struct {
	stats outbox.Stats
	dead  []outbox.Message
	err   error
	asked []any
}

func (f *fake) Stats(ctx context.Context) (outbox.Stats, error) {
	return f.stats, errors.Join(f.err, ctx.Err())
}

func (f *fake) Dead(ctx context.Context, after int64, limit, bytes int) (letters []admin.Letter, more bool, err error) {
	for _, m := range f.dead {
		if m.ID > after && len(letters) == limit {
			return letters, true, nil
		}
		if m.ID > after {
			letters = append(letters, admin.LetterOf(m, bytes))
		}
	}
	return letters, false, errors.Join(f.err, ctx.Err())
}

func (f *fake) Replay(_ context.Context, ids []int64) (int64, error) {
	f.asked = append(f.asked, ids)
	return int64(len(ids)), f.err
}

func (f *fake) Purge(_ context.Context, before time.Time) (int64, error) {
	f.asked = append(f.asked, before)
	return 1, f.err
}

func (f *fake) Pause(_ context.Context, topic string) error {
	f.asked = append(f.asked, "pause "+topic)
	return f.err
}

func (f *fake) Resume(_ context.Context, topic string) error {
	f.asked = append(f.asked, "resume "+topic)
	return f.err
}

const (
	browser = "text/html,application/xhtml+xml,*/*;q=0.8"
	form    = "application/x-www-form-urlencoded"
)

// ask sends a request. Headers are name, value, …
func ask(t *testing.T, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", form)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func mounted(f *fake) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/ops/outbox/", http.StripPrefix("/ops/outbox", admin.NewHandler(f)))
	return mux
}

// problem decodes an error.
func problem(t *testing.T, w *httptest.ResponseRecorder) (status int, detail, field string) {
	t.Helper()
	require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"), w.Body)
	var p struct {
		Title, Detail, Field string
		Status               int
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	require.Equal(t, w.Code, p.Status)
	require.Equal(t, http.StatusText(w.Code), p.Title)
	return p.Status, p.Detail, p.Field
}

func TestHandlerNeedsAnOutboxAndADatabase(t *testing.T) {
	t.Parallel()
	box, err := outbox.New(sqlite.Dialect{}, outbox.Options{})
	require.NoError(t, err)
	_, err = admin.Handler(nil, new(sql.DB))
	require.EqualError(t, err, "admin: box is nil, want one from outbox.New")
	_, err = admin.Handler(box, nil)
	require.EqualError(t, err, "admin: db is nil, want the database of the outbox")
}

func TestWrongPathsAndMethodsAreSaid(t *testing.T) {
	t.Parallel()
	h := mounted(&fake{})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/ops/outbox/nothing", 404, ""},
		{"GET", "/ops/outbox/stats/", 404, ""},
		{"POST", "/ops/outbox/", 405, "GET, HEAD"},
		{"DELETE", "/ops/outbox/dead", 405, "GET, HEAD"},
		{"GET", "/ops/outbox/replay", 405, "POST"},
		{"HEAD", "/ops/outbox/purge", 405, "POST"},
		{"PUT", "/ops/outbox/pause", 405, "POST"},
		{"HEAD", "/ops/outbox/stats", 200, ""},
		{"HEAD", "/ops/outbox/", 200, ""},
	} {
		w := ask(t, h, c.method, c.path, "")
		require.Equal(t, c.status, w.Code, c)
		require.Equal(t, c.allow, w.Header().Get("Allow"), c)
		if c.status != 200 {
			_, detail, _ := problem(t, w)
			require.Contains(t, detail, "want ", c)
		}
	}
}

func TestChangesNeedAForm(t *testing.T) {
	t.Parallel()
	f := &fake{}
	h := mounted(f)
	for _, c := range []struct {
		target, body, contentType string
		status                    int
		detail, field             string
	}{
		{"replay", `{"id":1}`, "application/json", 415, `Content-Type is "application/json", want ` + form, ""},
		{"replay", "id=1", "", 415, `Content-Type is "", want ` + form, ""},
		{"replay?id=1", "", form, 400, `the query is "id=1", want none: the parameters of a POST belong in its body`, "the query"},
		{"replay", "ids=1", form, 400, `the name of a parameter is "ids", want one of id`, "the name of a parameter"},
		{"replay", "id=x", form, 400, `id is "x", want a whole number from 1 to 9223372036854775807`, "id"},
		{"replay", "id=" + strings.Repeat("1", 64<<10), form, 413, `the body has more than 65536 bytes, want at most that`, ""},
		{"purge", "", form, 400, `before is "", want a time after 1970, such as 2026-01-31T23:59:59Z, or without a zone in UTC`, "before"},
		{"pause", "topic=", form, 400, `topic is "", want the name of a topic`, "topic"},
	} {
		w := ask(t, h, "POST", "/ops/outbox/"+c.target, c.body, "Content-Type", c.contentType)
		status, detail, field := problem(t, w)
		require.Equal(t, []any{c.status, c.detail, c.field}, []any{status, detail, field})
	}
	require.Empty(t, f.asked)
}

func TestChangesAreAnsweredAsTheClientLikes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, body, answer, location, notice string
		asked                                any
	}{
		{"replay", "id=7&id=3", `{"replayed":2}`, "./?did=replay&n=2", "2 dead messages were made due again.", []int64{7, 3}},
		{"purge", "before=2026-01-02T03:04", `{"purged":1}`, "./?did=purge&n=1", "1 dead message was deleted.", time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)},
		{"pause", "topic=or%26ders", `{"paused":true,"topic":"or\u0026ders"}`, "./?did=pause", "Paused.", "pause or&ders"},
		{"resume", "topic=orders", `{"paused":false,"topic":"orders"}`, "./?did=resume", "Resumed.", "resume orders"},
	} {
		f := &fake{}
		h := mounted(f)
		w := ask(t, h, "POST", "/ops/outbox/"+c.path, c.body, "Accept", "*/*")
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.Equal(t, c.answer+"\n", w.Body.String())

		w = ask(t, h, "POST", "/ops/outbox/"+c.path, c.body, "Accept", browser)
		require.Equal(t, 303, w.Code)
		require.Equal(t, c.location, w.Header().Get("Location"))
		require.Equal(t, []any{c.asked, c.asked}, f.asked)
		w = ask(t, h, "GET", "/ops/outbox/"+strings.TrimPrefix(c.location, "./"), "", "Accept", browser)
		require.Contains(t, w.Body.String(), `role="status" class="notice">`+c.notice)
	}
}

// Browsers say where a request comes from, and programs do not.
func TestOtherSitesChangeNothing(t *testing.T) {
	t.Parallel()
	f := &fake{}
	h := mounted(f)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
	} {
		status, detail, _ := problem(t, ask(t, h, "POST", "/ops/outbox/replay", "id=1", headers...))
		require.Equal(t, 403, status)
		require.Contains(t, detail, "want a request from this page, or from a program")
	}
	require.Empty(t, f.asked)
	for _, headers := range [][]string{nil, {"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://example.com"}} {
		require.Equal(t, 200, ask(t, h, "POST", "/ops/outbox/replay", "id=1", headers...).Code)
	}
}

func TestEveryAnswerIsGuarded(t *testing.T) {
	t.Parallel()
	h := mounted(&fake{})
	for _, w := range []*httptest.ResponseRecorder{
		ask(t, h, "GET", "/ops/outbox/", ""), ask(t, h, "GET", "/ops/outbox/stats", ""), ask(t, h, "GET", "/ops/outbox/no", ""),
		ask(t, h, "POST", "/ops/outbox/replay", "id=1", "Accept", browser), ask(t, h, "POST", "/ops/outbox/replay", "", "Accept", browser),
	} {
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		require.Equal(t, "same-origin", w.Header().Get("Referrer-Policy"))
		require.Equal(t, "same-origin", w.Header().Get("Cross-Origin-Opener-Policy"))
		require.Equal(t, "same-origin", w.Header().Get("Cross-Origin-Resource-Policy"))
		policy := w.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'; ")
		require.Contains(t, policy, "frame-ancestors 'none'")
		require.NotContains(t, policy, "unsafe")
	}
}

// The hash is that of the bytes between the tags.
func TestThePolicyAllowsTheStyleOfThePage(t *testing.T) {
	t.Parallel()
	w := ask(t, mounted(&fake{}), "GET", "/ops/outbox/", "")
	style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(w.Body.String())
	require.Len(t, style, 2)
	sum := sha256.Sum256([]byte(style[1]))
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	for _, script := range []string{"<script", "javascript:", " on", "http://", "https://", ` style="`} {
		require.NotContains(t, regexp.MustCompile(`<[^>]*`+regexp.QuoteMeta(script)).FindString(w.Body.String()), script)
	}
}

func full() *fake {
	nasty := `<script>alert(1)</script>"'&`
	return &fake{
		stats: outbox.Stats{
			Ready: 10_000, Waiting: 3, ParkedKeys: 1, Dead: 2, Oldest: 90 * time.Second, Delivered: 5, Failed: 6, Rate: 1.25,
			Leases: []outbox.Lease{{Owner: "host/1", Epoch: 4, Buckets: 64, Left: 2500 * time.Millisecond}},
			Topics: []outbox.TopicStats{{Topic: "orders", Ready: 10_000, Dead: 2}, {Topic: nasty, Waiting: 3, Paused: true}},
		},
		dead: []outbox.Message{
			{
				ID: 3, Topic: nasty, Key: nasty, Type: nasty, Payload: []byte(nasty), Header: map[string]string{"traceparent": nasty},
				CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Attempt: 1, LastError: nasty,
			},
			{ID: 9, Topic: "orders", Payload: []byte{0xff, 0}, CreatedAt: time.Unix(1, 0), Attempt: 100},
		},
	}
}

func TestThePageShowsWhatThereIs(t *testing.T) {
	t.Parallel()
	w := ask(t, mounted(full()), "GET", "/ops/outbox/", "")
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	html := w.Body.String()
	require.NotContains(t, html, "<script>")
	for _, want := range []string{
		"10,000 or more", "1m30s", "host/1", "2.5s", `action="pause"`, `action="resume"`,
		"&lt;script&gt;alert(1)&lt;/script&gt;", "traceparent", "1 attempt<", "100 attempts<", base64.StdEncoding.EncodeToString([]byte{0xff, 0}),
		`name="id" value="9"`, "Replay all 2 above", "2026-01-02T03:04:05Z",
	} {
		require.Contains(t, html, want)
	}
	require.NotContains(t, html, "Next ones")

	html = ask(t, mounted(&fake{}), "GET", "/ops/outbox/", "").Body.String()
	for _, want := range []string{"Nobody drains.", "No topic has messages.", "<p>None.</p>"} {
		require.Contains(t, html, want)
	}
}

func TestThePageHasPages(t *testing.T) {
	t.Parallel()
	f := &fake{}
	for id := int64(1); id <= 120; id++ {
		f.dead = append(f.dead, outbox.Message{ID: id, Topic: "t"})
	}
	h := mounted(f)
	var seen int
	for next := "./"; next != ""; {
		html := ask(t, h, "GET", "/ops/outbox/"+strings.TrimPrefix(next, "./"), "").Body.String()
		seen += strings.Count(html, `type="checkbox" name="id"`)
		next = ""
		if m := regexp.MustCompile(`<a href="(\./\?after=\d+)" rel="next">`).FindStringSubmatch(html); m != nil {
			next = m[1]
		}
	}
	require.Equal(t, 120, seen)
}

func TestStatsAreJSON(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"ready":10000,"waiting":3,"parked_keys":1,"dead":2,"oldest_seconds":90,
		"leases":[{"owner":"host/1","epoch":4,"buckets":64,"left_seconds":2.5}],
		"topics":[{"topic":"orders","ready":10000,"waiting":0,"dead":2,"paused":false},
			{"topic":"<script>alert(1)</script>\"'&","ready":0,"waiting":3,"dead":0,"paused":true}],
		"process":{"delivered":5,"failed":6,"delivered_per_second":1.25}}`,
		ask(t, mounted(full()), "GET", "/ops/outbox/stats", "").Body.String())
	require.JSONEq(t, `{"ready":0,"waiting":0,"parked_keys":0,"dead":0,"oldest_seconds":0,"leases":[],"topics":[],
		"process":{"delivered":0,"failed":0,"delivered_per_second":0}}`,
		ask(t, mounted(&fake{}), "GET", "/ops/outbox/stats", "").Body.String())
}

func TestPayloadsAreCut(t *testing.T) {
	t.Parallel()
	f := &fake{dead: []outbox.Message{
		{ID: 1, Topic: "t", Payload: []byte("añb")},
		{ID: 2, Topic: "t", Payload: []byte{1, 2, 0xff}},
		{ID: 3, Topic: "t", DeliverAt: time.Unix(5, 0).UTC()},
	}}
	h := mounted(f)
	rest := `"key":"","type":"","created_at":"0001-01-01T00:00:00Z","attempts":0,"last_error":""`
	require.JSONEq(t, `{"messages":[
		{"id":1,"topic":"t",`+rest+`,"payload":"YcM=","payload_size":4,"payload_cut":true,"payload_text":"a"},
		{"id":2,"topic":"t",`+rest+`,"payload":"AQI=","payload_size":3,"payload_cut":true}],"next":2}`,
		ask(t, h, "GET", "/ops/outbox/dead?bytes=2&limit=2", "").Body.String())
	require.JSONEq(t, `{"messages":[
		{"id":3,"topic":"t",`+rest+`,"deliver_at":"1970-01-01T00:00:05Z","payload":"","payload_size":0,"payload_cut":false,"payload_text":""}]}`,
		ask(t, h, "GET", "/ops/outbox/dead?after=2", "").Body.String())
	require.JSONEq(t, `{"messages":[]}`, ask(t, h, "GET", "/ops/outbox/dead?after=3", "").Body.String())
}

func TestErrorsOfTheOutboxAreAnswered(t *testing.T) {
	t.Parallel()
	f := &fake{err: errors.New("outbox: stats: no such table: <outbox_dead>")}
	h := mounted(f)
	for _, target := range []string{"", "stats", "dead"} {
		status, detail, _ := problem(t, ask(t, h, "GET", "/ops/outbox/"+target, ""))
		require.Equal(t, 500, status)
		require.Equal(t, "outbox: stats: no such table: <outbox_dead>", detail)
	}
	w := ask(t, h, "GET", "/ops/outbox/", "", "Accept", browser)
	require.Equal(t, 500, w.Code)
	require.Contains(t, w.Body.String(), `<p role="alert">outbox: stats: no such table: &lt;outbox_dead&gt;.</p>`)

	f.err = outbox.ErrInvalid
	for target, body := range map[string]string{"pause": "topic=%00", "resume": "topic=%00", "replay": "id=1", "purge": "before=2026-01-01T00:00"} {
		status, _, _ := problem(t, ask(t, h, "POST", "/ops/outbox/"+target, body))
		require.Equal(t, 400, status, target)
	}
}

func TestAskingEndsWithTheRequest(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	mounted(&fake{}).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/ops/outbox/stats", nil))
	_, detail, _ := problem(t, w)
	require.Equal(t, "context canceled", detail)
}

// Relative links need a slash at the end of the page's name.
func TestThePageWorksUnderAnyPrefix(t *testing.T) {
	t.Parallel()
	h := admin.NewHandler(&fake{})
	for _, c := range []struct{ strip, target, location string }{
		{"", "/", ""},
		{"/a/b", "/a/b/", ""},
		{"/a/b/", "/a/b/", ""},
		{"/a/b/", "/a/b/stats", ""},
		{"/a/b", "/a/b", "./b/"},
		{"/a/b", "/a/b?after=3", "./b/?after=3"},
		{"/a%20b", "/a%20b", "./a%20b/"},
	} {
		strip := strings.ReplaceAll(c.strip, "%20", " ")
		w := ask(t, http.StripPrefix(strip, h), "GET", c.target, "")
		require.Equal(t, c.location, w.Header().Get("Location"), c)
		if c.location != "" {
			require.Equal(t, 308, w.Code)
		} else {
			require.Equal(t, 200, w.Code, c)
		}
	}
}
