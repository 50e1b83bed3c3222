package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Client calls verbs, of a running server or of a handler in this process.
type Client struct {
	http   *http.Client
	remote bool
}

// ErrNobody says that no server listens on the socket.
var ErrNobody = errors.New("no server listens there")

// dialTime bounds the wait for a server that is there and does not accept.
const dialTime = 5 * time.Second

// Dial returns a client of the server that listens on the socket; ErrNobody when
// there is none, whether the socket's file is missing or was left behind.
func Dial(ctx context.Context, socket string) (*Client, error) {
	dial := func(ctx context.Context) (conn net.Conn, err error) {
		dialer := net.Dialer{Timeout: dialTime}
		err = shortly(socket, func(name string) (err error) { conn, err = dialer.DialContext(ctx, "unix", name); return err })
		return conn, err
	}
	conn, err := dial(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%s: %w", socket, ErrNobody)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open %s: permission denied: run this as the server's user", socket)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the running server: %w", err)
	}
	_ = conn.Close() // it was only to see who is there
	return &Client{remote: true, http: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}}}, nil
}

// Local returns a client of a handler in this process, for the user with this uid.
func Local(h http.Handler, uid int) *Client {
	return &Client{http: &http.Client{Transport: inProcess{h, uid}}}
}

// Remote says whether calls go to another process.
func (c *Client) Remote() bool { return c.remote }

// Call calls a verb and decodes its answer. A refusal is an *Error.
func Call[Out any](ctx context.Context, c *Client, verb string, in any) (Out, error) {
	var out Out
	body, err := Stream(ctx, c, verb, in)
	if err != nil {
		return out, err
	}
	defer body.Close()
	text, err := readAnswer(verb, body)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, fmt.Errorf("%s: read answer: %w", verb, err)
	}
	return out, nil
}

// Stream calls a verb that answers with bytes. A refusal is an *Error; an answer that ends early is an error of the
// reader, which the caller closes.
func Stream(ctx context.Context, c *Client, verb string, in any) (io.ReadCloser, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://admin/"+verb, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := readAnswer(verb, resp.Body)
	if err != nil {
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || a.Error == "" {
		a.Error = fmt.Sprintf("%s: the server answered %s", verb, resp.Status)
	}
	return nil, &Error{Status: resp.StatusCode, Message: a.Error, RequestID: a.RequestID}
}

func readAnswer(verb string, body io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err == nil && len(text) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: read answer: %w", verb, err)
	}
	return text, nil
}

// inProcess hands requests to a handler and passes its answer on as it comes.
type inProcess struct {
	h   http.Handler
	uid int
}

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	out, in := io.Pipe()
	w := &piped{out: in, header: http.Header{}, begun: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		defer w.end()
		t.h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), uidKey{}, t.uid)))
	}()
	<-w.begun
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Header: w.header, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: answerBody{out, w.ended}, ContentLength: -1,
	}, nil
}

// piped is a handler's answer on its way.
type piped struct {
	out          *io.PipeWriter
	header       http.Header
	status       int
	begun, ended chan struct{}
}

func (p *piped) Header() http.Header { return p.header }

func (p *piped) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
		close(p.begun)
	}
}

func (p *piped) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.out.Write(b)
}

// end ends the answer, early if the handler gave up.
func (p *piped) end() {
	failed := recover()
	p.WriteHeader(http.StatusInternalServerError) // if there was none
	if failed != nil {
		_ = p.out.CloseWithError(io.ErrUnexpectedEOF) // it is never an error
		return
	}
	_ = p.out.Close()
}

// answerBody waits for its handler when it is closed: what that uses is closed next.
type answerBody struct {
	*io.PipeReader
	ended chan struct{}
}

func (b answerBody) Close() error {
	err := b.PipeReader.Close()
	<-b.ended
	return err
}
