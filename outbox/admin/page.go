package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"time"

	"github.com/evenkeel-go/evenkeel/outbox"
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var styleCSS string

var page = template.Must(template.New("").Funcs(template.FuncMap{
	"age":    age,
	"base64": base64.StdEncoding.EncodeToString,
	"count":  count,
	"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"style":  func() template.CSS { return template.CSS(styleCSS) },
}).Parse(pageHTML))

// policy allows our one style by its hash, forms that come back here, and nothing
// else.
var policy = func() string {
	sum := sha256.Sum256([]byte(styleCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}()

func render(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := page.ExecuteTemplate(&b, name, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// content is what the page shows.
type content struct {
	Notice string
	At     time.Time
	Stats  outbox.Stats
	Dead   []letter
	After  int64
	Next   int64 // 0 at the end
}

func (h *handler) page(w http.ResponseWriter, r *http.Request, parameters string) error {
	q, err := parsePage(parameters)
	if err != nil {
		return err
	}
	c := content{Notice: q.notice(), At: time.Now(), After: q.after}
	if c.Stats, err = h.source.Stats(r.Context()); err != nil {
		return err
	}
	letters, more, err := h.source.Dead(r.Context(), q.after, defaultLimit, defaultBytes)
	if err != nil {
		return err
	}
	d := deadOf(letters, more)
	c.Dead, c.Next = d.Messages, d.Next
	body, err := render("page", c)
	if err != nil {
		return err
	}
	write(w, "text/html; charset=utf-8", http.StatusOK, body)
	return nil
}

// notice says what was done just now.
func (q pageQuery) notice() string {
	switch q.did {
	case "replay":
		return fmt.Sprintf("%s made due again.", messages(q.n))
	case "purge":
		return fmt.Sprintf("%s deleted.", messages(q.n))
	case "pause":
		return "Paused. Drainers notice at their next poll."
	case "resume":
		return "Resumed. Drainers notice at their next poll."
	}
	return ""
}

func messages(n int64) string {
	if n == 1 {
		return "1 dead message was"
	}
	return fmt.Sprintf("%d dead messages were", n)
}

// counted is where outbox.Stats stops counting.
const counted = 10_000

func count(n int64) string {
	if n >= counted {
		return "10,000 or more"
	}
	return strconv.FormatInt(n, 10)
}

// age is a duration as a person would say it.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
