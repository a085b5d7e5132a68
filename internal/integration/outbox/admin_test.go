package outbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/outbox"
	"github.com/evenkeel-go/evenkeel/outbox/admin"
)

// An adminPage is a service with the page, and somebody who uses it.
type adminPage struct {
	box  *outbox.Outbox
	base string
	// drain delivers what is due. Payloads that begin with "bad" never arrive.
	drain func(t *testing.T) (delivered []string)
	add   func(t *testing.T, topic string, payloads ...string)
}

func newAdminPage(t *testing.T, driver string) *adminPage {
	db, box := newBox(t, driver, outbox.Options{})
	page, err := admin.Handler(box, db)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/admin/outbox/", http.StripPrefix("/admin/outbox", page))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p := &adminPage{box: box, base: server.URL + "/admin/outbox/"}
	p.drain = func(t *testing.T) (delivered []string) {
		_, err := box.Drain(t.Context(), db, outbox.PublisherFunc(func(_ context.Context, m outbox.Message) error {
			if strings.HasPrefix(string(m.Payload), "bad") {
				return outbox.Permanent(errors.New("refused"))
			}
			delivered = append(delivered, string(m.Payload))
			return nil
		}))
		require.NoError(t, err)
		return delivered
	}
	p.add = func(t *testing.T, topic string, payloads ...string) {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { _ = tx.Rollback() }()
		for _, payload := range payloads {
			require.NoError(t, box.Add(t.Context(), tx, outbox.Message{Topic: topic, Payload: []byte(payload)}))
		}
		require.NoError(t, tx.Commit())
	}
	return p
}

// get returns the answer of a program that asks.
func (p *adminPage) get(t *testing.T, target string, out any) {
	t.Helper()
	r, err := http.Get(p.base + target)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Body.Close()) }()
	require.Equal(t, http.StatusOK, r.StatusCode)
	require.NoError(t, json.NewDecoder(r.Body).Decode(out))
}

// post returns the answer to a program that wants a change.
func (p *adminPage) post(t *testing.T, target string, form url.Values) string {
	t.Helper()
	r, err := http.PostForm(p.base+target, form)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Body.Close()) }()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode, string(body))
	return strings.TrimSpace(string(body))
}

// browse sends what a browser would: with a form if it is not nil, and on to
// where it is sent.
func (p *adminPage) browse(t *testing.T, target string, form url.Values) (html string) {
	t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.base+target, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Body.Close()) }()
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode, string(body))
	require.Equal(t, "text/html; charset=utf-8", r.Header.Get("Content-Type"))
	return string(body)
}

type deadPage struct {
	Messages []struct {
		ID        int64
		Topic     string
		Attempts  int
		LastError string `json:"last_error"`
		Payload   []byte
		Text      *string `json:"payload_text"`
	}
	Next int64
}

func TestAdminPagesThroughDeadMessagesAndReplays(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			p := newAdminPage(t, driver)
			var want, got []string
			for i := range 130 {
				want = append(want, fmt.Sprint("bad ", i))
			}
			p.add(t, "orders", want...)
			require.Empty(t, p.drain(t))

			var first deadPage
			for after, more := int64(0), true; more; {
				var page deadPage
				p.get(t, fmt.Sprintf("dead?limit=60&after=%d", after), &page)
				for _, m := range page.Messages {
					require.Equal(t, []any{"orders", 1, "permanent: refused", string(m.Payload)}, []any{m.Topic, m.Attempts, m.LastError, *m.Text})
					got = append(got, string(m.Payload))
				}
				if after == 0 {
					first = page
				}
				after, more = page.Next, page.Next != 0
			}
			require.Equal(t, want, got)

			// A program replays two, and they die again.
			ids := url.Values{"id": {fmt.Sprint(first.Messages[3].ID), fmt.Sprint(first.Messages[1].ID), "999999"}}
			require.Equal(t, `{"replayed":2}`, p.post(t, "replay", ids))
			var st struct{ Dead, Waiting int64 }
			p.get(t, "stats", &st)
			require.Equal(t, int64(128), st.Dead)
			require.Equal(t, int64(2), st.Waiting)
			require.Empty(t, p.drain(t))
			p.get(t, "stats", &st)
			require.Equal(t, int64(130), st.Dead)
			var again deadPage
			p.get(t, fmt.Sprintf("dead?limit=1&after=%d", first.Messages[0].ID), &again)
			require.Equal(t, first.Messages[1].ID, again.Messages[0].ID)
			require.Equal(t, 1, again.Messages[0].Attempts, "it began anew")

			// A person replays a page of them, which has all of their ids.
			html := p.browse(t, "", nil)
			require.Contains(t, html, "bad 49")
			hidden := regexp.MustCompile(`<input type="hidden" name="id" value="(\d+)">`).FindAllStringSubmatch(html, -1)
			require.Len(t, hidden, 50)
			ids = url.Values{}
			for _, m := range hidden {
				ids.Add("id", m[1])
			}
			require.Contains(t, p.browse(t, "replay", ids), "50 dead messages were made due again.")
			p.get(t, "stats", &st)
			require.Equal(t, int64(80), st.Dead)
		})
	}
}

func TestAdminPurgesWhatDiedBefore(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			p := newAdminPage(t, driver)
			p.add(t, "orders", "bad", "bad", "good")
			require.Equal(t, []string{"good"}, p.drain(t))
			hour := func(d time.Duration) url.Values {
				return url.Values{"before": {time.Now().Add(d).Format(time.RFC3339)}}
			}
			require.Equal(t, `{"purged":0}`, p.post(t, "purge", hour(-time.Hour)))
			require.Contains(t, p.browse(t, "purge", hour(time.Hour)), "2 dead messages were deleted.")
			var page deadPage
			p.get(t, "dead", &page)
			require.Empty(t, page.Messages)
		})
	}
}

func TestAdminPausesAndResumesATopic(t *testing.T) {
	for driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			p := newAdminPage(t, driver)
			const topic = `or&de"rs`
			require.JSONEq(t, `{"topic":"or&de\"rs","paused":true}`, p.post(t, "pause", url.Values{"topic": {topic}}))
			p.add(t, topic, "one")
			p.add(t, "mail", "two")
			require.Equal(t, []string{"two"}, p.drain(t))
			html := p.browse(t, "", nil)
			require.Contains(t, html, `action="resume"><input type="hidden" name="topic" value="or&amp;de&#34;rs">`)
			require.Contains(t, p.browse(t, "resume", url.Values{"topic": {topic}}), "Resumed.")
			require.Equal(t, []string{"one"}, p.drain(t))
		})
	}
}

// The page is mounted behind the login of the service. A program asks for JSON and
// replays what died.
func Example_admin() {
	ctx := context.Background()
	db, box, remove := temporary(outbox.Options{})
	defer remove()
	page, err := admin.Handler(box, db)
	check(err)
	operatorsOnly := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name, password, _ := r.BasicAuth(); name != "operator" || password != "secret" {
				http.Error(w, "operators only", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux := http.NewServeMux()
	mux.Handle("/admin/outbox/", operatorsOnly(http.StripPrefix("/admin/outbox", page)))

	tx, err := db.BeginTx(ctx, nil)
	check(err)
	check(box.Add(ctx, tx, outbox.Message{Topic: "orders", Key: "order/1", Payload: []byte(`paid`)}))
	check(tx.Commit())
	_, err = box.Drain(ctx, db, outbox.PublisherFunc(func(context.Context, outbox.Message) error {
		return outbox.Permanent(errors.New("410 Gone"))
	}))
	check(err)

	ask := func(method, target, body, password string) {
		r := httptest.NewRequest(method, "/admin/outbox/"+target, strings.NewReader(body))
		r.SetBasicAuth("operator", password)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	ask("GET", "stats", "", "guess")
	ask("POST", "replay", "id=one", "secret")
	ask("POST", "replay", "id=1", "secret")
	ask("GET", "dead", "", "secret")
	// Output:
	// 401 operators only
	// 400 {"title":"Bad Request","status":400,"detail":"id is \"one\", want a whole number from 1 to 9223372036854775807","field":"id"}
	// 200 {"replayed":1}
	// 200 {"messages":[]}
}
