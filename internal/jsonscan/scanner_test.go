package jsonscan

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func skip(text string) error {
	s := New([]byte(text), 0)
	if err := s.Skip(); err != nil {
		return err
	}
	return s.End()
}

func TestSkipReadsEveryValue(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, ` false `, `0`, `-0`, `1.5e+9`, `1e999`, `""`, `"a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"`,
		`[]`, `{}`, `[1,[2,{"a":[]}],{}]`, `{"a":{"b":[{}]},"a":1}`, "\t{ \"a\" :\n1 , \"b\":[ ] }\r\n",
		strings.Repeat("[", 100000) + strings.Repeat("]", 100000),
	} {
		if err := skip(text); err != nil {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}

func TestSkipRefusesWhatIsNoJSON(t *testing.T) {
	for _, text := range []string{
		``, ` `, `nul`, `nulll`, `01`, `-`, `1.`, `.5`, `1e`, `+1`, `"`, `"\x"`, `"\u12"`, "\"\n\"", `'a'`,
		`[`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `{`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`, `{"a" 1}`, `{1:2}`, `{a:1}`,
		`[}`, `{]`, `[1}`, `{"a":1]`, `1 2`, `{}{}`, `{}x`, "\ufeff{}", "\"\xff\"", `"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, `//`,
	} {
		var e *Error
		if err := skip(text); !errors.As(err, &e) || !e.Syntax {
			t.Errorf("%q: got %v, want a syntax error", text, err)
		}
	}
}

func TestFirstFaultDecides(t *testing.T) {
	for _, c := range []struct {
		text   string
		syntax bool
	}{
		{`{"n":"x","b":`, false}, // wrong type, then an end too early
		{`{"u":,"n":"x"}`, true},
		{`{"n":1,"n":`, false}, // the second name is enough
		{`{"n":1`, true},
		{`{}x`, false}, // the missing member is noticed at the brace
		{`{"n":1}x`, true},
		{`[1]`, false}, {`null`, false}, {`"x"`, false}, {`tru`, true}, {`x`, true}, {``, true}, {`{"n":1.}`, true}, {`{"n":1.0}`, false},
	} {
		s := New([]byte(c.text), 0)
		err := s.Members([]Field{{Name: "n", Read: func() error { _, err := s.Uint(); return err }}})
		if err == nil {
			err = s.End()
		}
		var e *Error
		if !errors.As(err, &e) || e.Syntax != c.syntax {
			t.Errorf("%s: got %v, want an error with syntax = %v", c.text, err, c.syntax)
		}
	}
}

func TestMembersSkipsUnknownOnesEvenTwice(t *testing.T) {
	var n uint64
	s := New([]byte(`{"u":1,"n":7,"u":[{"n":8}]}`), 0)
	err := s.Members([]Field{{Name: "n", Read: func() (err error) { n, err = s.Uint(); return }}})
	if err != nil || n != 7 {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestPositionalWantsAllValues(t *testing.T) {
	for text, ok := range map[string]bool{`[1,2]`: true, `[1]`: false, `[1,2,3]`: false, `[]`: false, `{"a":1,"b":2}`: true} {
		s := New([]byte(text), 0)
		read := func() error { _, err := s.Uint(); return err }
		if err := s.Positional([]Field{{Name: "a", Read: read}, {Name: "b", Read: read}}); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestIntegers(t *testing.T) {
	for text, want := range map[string]bool{
		"0": true, "-1": true, "2147483647": true, "-2147483648": true,
		"2147483648": false, "-2147483649": false, "-0": false, "1.0": false, "1e2": false,
		"18446744073709551616": false, "-9223372036854775809": false, "null": false, `"1"`: false, "true": false,
	} {
		_, err := New([]byte(text), 0).Integer(-1<<31, 1<<31-1)
		if (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if n, err := New([]byte("-9223372036854775808"), 0).Integer(-1<<63, 0); err != nil || n != -1<<63 {
		t.Errorf("least integer: %d, %v", n, err)
	}
	if n, err := New([]byte("18446744073709551615"), 0).Uint(); err != nil || n != 1<<64-1 {
		t.Errorf("largest unsigned: %d, %v", n, err)
	}
	var e *Error
	if _, err := New([]byte("1e400"), 0).Number(); !errors.As(err, &e) || !e.Syntax {
		t.Errorf("1e400: %v", err)
	}
}

func TestDepthIsBounded(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if err := New([]byte(nested(127)), 127).Skip(); err != nil {
		t.Errorf("127 levels: %v", err)
	}
	if err := New([]byte(nested(128)), 127).Skip(); err == nil {
		t.Error("128 levels are accepted")
	}
}

func TestErrorNamesTheMember(t *testing.T) {
	err := Within("caches", Within("main", New([]byte(`"x"`), 0).Object(nil)))
	if got, want := err.Error(), "caches.main: not an object"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzSkip compares with encoding/json, which is only more lenient with bytes
// that are not UTF-8 and with surrogates.
func FuzzSkip(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\u00e4",null,true]}`, `[[[]]]`, `{"a":1,}`, `"\ud83d\ude00"`, `-0.0`, `[1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := skip(string(data))
		surrogate := slices.ContainsFunc([]string{`\ud`, `\uD`}, func(s string) bool { return strings.Contains(string(data), s) })
		if want := json.Valid(data); (err == nil) != want && (err == nil || utf8.Valid(data) && !surrogate) {
			t.Errorf("%q: %v, but json.Valid says %v", data, err, want)
		}
	})
}

// FuzzText compares strings with encoding/json's.
func FuzzText(f *testing.F) {
	for _, s := range []string{`"a"`, `"\ud83d\ude00"`, `"\u0000\n"`, `"ä"`, `"\ud800x"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := New(data, 0).Text()
		if err != nil {
			return
		}
		var want string
		end := strings.LastIndexByte(string(data), '"')
		if json.Unmarshal(data[:end+1], &want) == nil && got != want {
			t.Errorf("%q: got %q, want %q", data, got, want)
		}
	})
}
