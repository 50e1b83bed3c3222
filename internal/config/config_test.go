package config

import (
	"encoding/base64"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/trust"
)

const secret = "Y29uZm9ybWFuY2Utc2VjcmV0LTAxMjM0NTY3ODlhYmNkZWY="

// env is an environment with a home and a token secret.
func env(pairs ...string) func(string) string {
	m := map[string]string{"HOME": "/home/u", envHS256: secret}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return m[name] }
}

// load loads text as a file's content; the file is called server.toml in messages.
func load(t *testing.T, text string, getenv func(string) string) (*Server, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(Options{File: file, Getenv: getenv})
	if err != nil {
		return nil, fmt.Errorf("%s", strings.ReplaceAll(err.Error(), file, "server.toml"))
	}
	for i, w := range s.Warnings {
		s.Warnings[i] = strings.ReplaceAll(w, file, "server.toml")
	}
	return s, nil
}

const typical = `listen = "[::]:8080"
api-endpoint = "https://cache.example.org"
allowed-hosts = ["cache.example.org"]
[database]
url = "sqlite:///var/lib/atticd/server.db?mode=rwc"
[storage]
type = "local"
path = "/var/lib/atticd/storage"
[chunking]
nar-size-threshold = 65536
min-size = 16384
avg-size = 65536
max-size = 262144
[compression]
type = "zstd"
[garbage-collection]
interval = "12 hours"
default-retention-period = "6 months"
[jwt.signing]
token-hs256-secret-base64 = "` + secret + `"
`

func TestTypicalFile(t *testing.T) {
	s, err := load(t, typical, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Listen != "[::]:8080" || s.APIEndpoint != "https://cache.example.org/" || s.AllowedHosts[0] != "cache.example.org" ||
		s.SoftDeleteCaches || !s.RequireProof || s.MaxNarInfoSize != 1<<20 {
		t.Errorf("top level: %+v", s)
	}
	if d := s.Database; d.File != "/var/lib/atticd/server.db" || !d.Create || s.Data != "/var/lib/atticd" {
		t.Errorf("database: %+v, data %s", d, s.Data)
	}
	if s.Storage.Type != Local || s.Storage.Path != "/var/lib/atticd/storage" {
		t.Errorf("storage: %+v", s.Storage)
	}
	if want := (chunk.Params{Min: 16384, Avg: 65536, Max: 262144}); s.Chunking != want || s.NARSizeThreshold != 65536 {
		t.Errorf("chunking: %+v from %d", s.Chunking, s.NARSizeThreshold)
	}
	if s.GC.Interval != 12*time.Hour || s.GC.Retention != 6*2630016*time.Second {
		t.Errorf("gc: %+v", s.GC)
	}
	if len(s.JWT.Keys) != 1 || !s.JWT.Keys[0].CanSign() || len(s.Secrets()) != 1 || s.JWT.Audiences != nil {
		t.Errorf("jwt: %+v", s.JWT)
	}
	if s.OIDC.Audience != "https://cache.example.org" || len(s.OIDC.Issuers) != 1 || s.OIDC.Issuers[0].URL != trust.GitHub {
		t.Errorf("oidc: %+v", s.OIDC)
	}
	if len(s.Warnings) != 1 || !strings.HasPrefix(s.Warnings[0], "server.toml:10: key chunking.nar-size-threshold: has no use") {
		t.Errorf("warnings: %q", s.Warnings)
	}
}

// NixOS checks its file in a sandbox without network, database, secrets and home.
func TestNixOSDefaults(t *testing.T) {
	const file = `[chunking]
avg-size = 65536
max-size = 262144
min-size = 16384
nar-size-threshold = 65536
[database]
url = "sqlite:///var/lib/atticd/server.db?mode=rwc"
[storage]
path = "/var/lib/atticd/storage"
type = "local"
[jwt]
`
	placeholder := map[string]string{envHS256: base64.StdEncoding.EncodeToString([]byte("placeholder")), envDatabase: "sqlite://:memory:"}
	for name, text := range map[string]string{"as nixpkgs has it": file, "the URL from the environment": strings.Replace(file, "url = ", "# ", 1)} {
		s, err := load(t, text, func(name string) string { return placeholder[name] })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Data != "/var/lib/atticd" || s.Storage.Path != "/var/lib/atticd/storage" || s.Listen != "[::]:8080" {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := os.Stat("/var/lib/atticd"); err == nil {
		t.Error("loading made /var/lib/atticd")
	}
}

func TestOldBlogConfigWorksWithAWarning(t *testing.T) {
	s, err := load(t, `listen = "0.0.0.0:8080"
token-hs256-secret-base64 = "`+secret+`"
[database]
url = "sqlite:///data/server.db?mode=rwc"
heartbeat = true
[storage]
type = "local"
path = "/data"
region = "ignored for local"
[chunking]
nar-size-threshold = 131072
min-size = 65536
avg-size = 131072
max-size = 262144
[compression]
type = "brotli"
level = 9
[garbage-collection]
interval = "0"
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.JWT.Keys) != 1 || s.GC.Interval != 0 || !s.Database.Heartbeat || s.Compression.Type != "brotli" || *s.Compression.Level != 9 {
		t.Errorf("%+v", s)
	}
	all := strings.Join(s.Warnings, "\n")
	for _, want := range []string{"server.toml:2: key token-hs256-secret-base64: its place is under [jwt.signing]", "server.toml:16: key compression.type", "server.toml:17: key compression.level"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in:\n%s", want, all)
		}
	}
}

func TestS3KeepsItsFields(t *testing.T) {
	s, err := load(t, `[storage]
type = "s3"
region = "auto"
bucket = "b"
endpoint = "https://x.r2.example"
[storage.credentials]
access_key_id = "id"
secret_access_key = "hunter2"
`, env())
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Storage; st.Type != S3 || st.Region != "auto" || st.Bucket != "b" || st.Endpoint != "https://x.r2.example" || st.AccessKeyID != "id" || string(st.SecretAccessKey) != "hunter2" {
		t.Errorf("%v", st)
	}
	if text := fmt.Sprintf("%v %+v %#v", s, s, s.Storage); strings.Contains(text, "hunter2") {
		t.Errorf("the secret prints: %s", text)
	}
}

func TestNothingAtAllIsOutOfTheBox(t *testing.T) {
	home := t.TempDir()
	for name, c := range map[string]struct {
		o    Options
		data string
	}{
		"home":     {Options{Getenv: func(n string) string { return map[string]string{"HOME": home}[n] }}, home + "/.local/share/attic-server"},
		"xdg":      {Options{Getenv: func(n string) string { return map[string]string{"XDG_DATA_HOME": home + "/x"}[n] }}, home + "/x/attic-server"},
		"--data":   {Options{Data: "/srv"}, "/srv"},
		"odd path": {Options{Data: "/srv/a b?c"}, "/srv/a b?c"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(c.o)
			if err != nil {
				t.Fatal(err)
			}
			if s.Data != c.data || s.Database.File != c.data+"/server.db" || !s.Database.Create || s.Storage.Type != Local || s.Storage.Path != c.data+"/storage" || s.Listen != "127.0.0.1:8080" || s.File != "" || len(s.JWT.Keys) != 0 ||
				s.Chunking != chunk.DefaultParams || s.GC.Interval != 12*time.Hour || s.Compression.Type != "zstd" {
				t.Errorf("%+v", s)
			}
			if d, err := parseDatabase(s.Database.URL); err != nil || d.File != s.Database.File {
				t.Errorf("the URL %s names %q (%v)", s.Database.URL, d.File, err)
			}
		})
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) != 0 {
		t.Errorf("loading made %v, %v", entries, err)
	}
	if _, err := Load(Options{}); err == nil || !strings.Contains(err.Error(), "--data") {
		t.Errorf("without a home: %v", err)
	}
}

func TestSourcesInOrder(t *testing.T) {
	home := t.TempDir()
	write := func(name, listen string) string {
		name = filepath.Join(home, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(`listen = "`+listen+`"`), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	write(".config/attic/server.toml", "127.0.0.1:1")
	encoded := base64.StdEncoding.EncodeToString([]byte(`listen = "127.0.0.1:2"`))
	file := write("own.toml", "127.0.0.1:3")
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Getenv: env("HOME", home)}, "127.0.0.1:1"},
		{Options{Getenv: env("HOME", home, envConfig, encoded)}, "127.0.0.1:2"},
		{Options{Getenv: env("HOME", home), Base64: encoded}, "127.0.0.1:2"},
		{Options{Getenv: env("HOME", home, envConfig, encoded), File: file}, "127.0.0.1:3"},
	} {
		s, err := Load(c.o)
		if err != nil || s.Listen != c.want {
			t.Errorf("%+v, %v; want %s", s, err, c.want)
		}
	}
	if _, err := Load(Options{File: filepath.Join(home, "none"), Getenv: env()}); err == nil {
		t.Error("a missing -f file is passed over")
	}
	if _, err := Load(Options{Getenv: env(envConfig, "!")}); err == nil || !strings.Contains(err.Error(), envConfig) {
		t.Errorf("broken base64: %v", err)
	}
}

func TestDatabaseURLs(t *testing.T) {
	for address, want := range map[string]Database{
		"sqlite:///a/b.db?mode=rwc": {File: "/a/b.db", Create: true},
		"sqlite:///a/b.db":          {File: "/a/b.db"},
		"sqlite:///a/b.db?mode=rw":  {File: "/a/b.db"},
		"sqlite:/a/b.db?mode=rwc":   {File: "/a/b.db", Create: true},
		"sqlite://b.db":             {File: "b.db"},
		"sqlite:b.db":               {File: "b.db"},
		"sqlite:///a%20b.db":        {File: "/a b.db"},
		"sqlite::memory:":           {File: memory, Create: true},
		"sqlite://:memory:":         {File: memory, Create: true},
	} {
		want.URL = address
		if got, err := parseDatabase(address); err != nil || got != want {
			t.Errorf("%s: %+v, %v", address, got, err)
		}
	}
	for address, text := range map[string]string{
		"postgresql:///attic?host=/run/postgresql": "not supported yet",
		"postgres://u:hunter2@h/d":                 "not supported yet",
		"mysql://u:hunter2@h/d":                    "not a database URL",
		"/a/b.db":                                  "not a database URL",
		"sqlite://":                                "no path",
		"sqlite:///a%00b":                          "no path",
		"sqlite:///a%zz":                           "no path",
		"sqlite:///a?mode=ro":                      "mode=ro",
		"sqlite:///a?mode=x":                       "parameter mode",
		"sqlite:///a?vfs=x":                        "parameter vfs",
	} {
		if _, err := parseDatabase(address); err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestFileComesBeforeEnvironment(t *testing.T) {
	other := base64.StdEncoding.EncodeToString([]byte("other"))
	s, err := load(t, typical, env(envHS256, other, envDatabase, "sqlite://:memory:"))
	if err != nil {
		t.Fatal(err)
	}
	if string(s.JWT.Keys[0].Secret()) == "other" || s.Database.File == memory {
		t.Error("the environment won")
	}
	s, err = load(t, "jwt = {}\n", env(envHS256, " "+other+"\n", envRS256Public, "", envRootKey, secret))
	if err != nil {
		t.Fatal(err)
	}
	if string(s.JWT.Keys[0].Secret()) != "other" || len(s.Secrets()) != 2 {
		t.Errorf("%+v", s.JWT)
	}
	// Public key, then private key, then secret: what is asked first must also be right.
	if _, err := load(t, "", env(envRS256Public, secret)); err == nil || !strings.Contains(err.Error(), envRS256Public) {
		t.Errorf("the public key is not asked first: %v", err)
	}
}

func TestChunkSizesAreClamped(t *testing.T) {
	sizes := func(min, avg, max int) string {
		return fmt.Sprintf("[chunking]\nnar-size-threshold = 0\nmin-size = %d\navg-size = %d\nmax-size = %d\n", min, avg, max)
	}
	for _, c := range []struct {
		text     string
		want     chunk.Params
		warnings int
	}{
		{sizes(64, 64, 64), chunk.Params{Min: 64, Avg: 64, Max: 64}, 1},
		{sizes(1<<16, 1<<18, 1<<22), chunk.Params{Min: 1 << 16, Avg: 1 << 18, Max: 1 << 20}, 2},
		{sizes(1<<21, 1<<22, 1<<23), chunk.Params{Min: 1 << 20, Avg: 1 << 20, Max: 1 << 20}, 2},
	} {
		s, err := load(t, c.text, env())
		if err != nil || s.Chunking != c.want || len(s.Warnings) != c.warnings || s.NARSizeThreshold != math.MaxInt64 {
			t.Errorf("%s: %+v, %v", c.text, s, err)
		}
	}
}

func TestErrorsNameLineKeyAndRemedy(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"misspelt":               {"\nlisten-adress = 1\nlistne = \"x\"", "server.toml:2: key listen-adress: there is no such key"},
		"suggestion":             {"\n\napi-endpont = \"x\"", "server.toml:3: key api-endpont: there is no such key; did you mean api-endpoint?"},
		"unknown table":          {"[databse]\nurl = \"x\"", "server.toml:1: key databse: there is no such key; did you mean database?"},
		"another table's key":    {"min-size = 5", "it belongs under [chunking]"},
		"a key of jwt.signing":   {"token-rs256-secret-base64 = \"x\"", "did you mean token-hs256-secret-base64?"},
		"case":                   {"Listen = \"[::]:1\"", "did you mean listen?"},
		"case in a table":        {"[database]\nURL = \"sqlite://x\"", "server.toml:2: key database.URL: there is no such key; did you mean url?"},
		"wrong type":             {"[chunking]\nmin-size = \"16 KiB\"", "server.toml:2: key chunking.min-size: want an integer"},
		"wrong type of a text":   {"listen = 8080", "server.toml:1: key listen: want a string, in quotes"},
		"wrong type of a list":   {"allowed-hosts = \"x\"", "server.toml:1: key allowed-hosts: want an array of strings"},
		"wrong type of a table":  {"database = \"sqlite://x\"", "server.toml:1: key database: want a table, [database]"},
		"wrong type of a switch": {"soft-delete-caches = \"yes\"", "server.toml:1: key soft-delete-caches: want true or false"},
		"duration without unit":  {"[garbage-collection]\ninterval = 43200", `server.toml:2: key garbage-collection.interval: want a duration in quotes, such as "12 hours"`},
		"duration":               {"[garbage-collection]\ninterval = \"12 parsecs\"", `server.toml:2: key garbage-collection.interval: "12 parsecs" is not a duration like "12 hours" or "1y 2months": unknown unit "parsecs"`},
		"no TOML":                {"a = 1\nb = = 2", "server.toml:2: not TOML"},
		"a key twice":            {"listen = \"[::]:1\"\nlisten = \"[::]:2\"", "server.toml:2"},
		"listen by name":         {"listen = \"localhost:8080\"", "server.toml:1: key listen: \"localhost:8080\" is not a numeric address and port"},
		"listen without address": {"listen = \":8080\"", "is not a numeric address and port"},
		"endpoint":               {"api-endpoint = \"cache.example.org\"", "is not a URL like https://cache.example.org/"},
		"negative size":          {"max-nar-info-size = -1", "-1 is negative"},
		"no URL":                 {"[database]", "server.toml:1: key database: no url, and ATTIC_SERVER_DATABASE_URL is not set"},
		"postgres":               {"[database]\nurl = \"postgres://x\"", "server.toml:2: key database.url: PostgreSQL is not supported yet"},
		"no storage type":        {"[storage]\npath = \"x\"", `key storage: no type: want type = "local" or "s3"`},
		"unknown storage":        {"[storage]\ntype = \"gcs\"", `server.toml:2: key storage.type: "gcs" is no type of storage`},
		"no path":                {"[storage]\ntype = \"local\"", "key storage: no path"},
		"no bucket":              {"[storage]\ntype = \"s3\"\nregion = \"x\"", "key storage: no bucket"},
		"half of credentials":    {"[storage]\ntype = \"s3\"\nregion = \"x\"\nbucket = \"b\"\ncredentials = { access_key_id = \"x\" }", "server.toml:5: key storage.credentials: no secret_access_key"},
		"chunking not complete":  {"[chunking]\nmin-size = 1", "server.toml:1: key chunking: no nar-size-threshold"},
		"impossible sizes":       {"[chunking]\nnar-size-threshold = 0\nmin-size = 2048\navg-size = 1024\nmax-size = 4096", "server.toml:1: key chunking: sizes 2048/1024/4096 are impossible"},
		"tiny chunks":            {"[chunking]\nnar-size-threshold = 0\nmin-size = 1\navg-size = 1024\nmax-size = 4096", "min is below 64"},
		"compression":            {"[compression]\ntype = \"zstandard\"", `server.toml:2: key compression.type: "zstandard" is no compression`},
		"no compression type":    {"[compression]\nlevel = 3", "key compression: no type"},
		"empty signing":          {"[jwt.signing]", "server.toml:1: key jwt.signing: it has no key"},
		"two keys":               {"[jwt.signing]\ntoken-hs256-secret-base64 = \"x\"\ntoken-rs256-secret-base64 = \"y\"", "keep one of them"},
		"two places":             {"token-hs256-secret-base64 = \"x\"\n[jwt.signing]\ntoken-hs256-secret-base64 = \"y\"", "there is [jwt.signing] too"},
		"empty secret":           {"[jwt.signing]\ntoken-hs256-secret-base64 = \"\"", "server.toml:2: key jwt.signing.token-hs256-secret-base64: the HS256 secret is empty"},
		"no base64":              {"[jwt.signing]\ntoken-hs256-secret-base64 = \"hunter2!\"", "key jwt.signing.token-hs256-secret-base64: not base64"},
		"base64 in lines":        {"[jwt.signing]\ntoken-hs256-secret-base64 = \"\"\"aGVs\nbG8h\"\"\"", "not base64"},
		"no PEM":                 {"[jwt.signing]\ntoken-rs256-secret-base64 = \"" + secret + "\"", "it is not PEM"},
		"empty issuer":           {"[jwt]\ntoken-bound-issuer = \"\"", "server.toml:2: key jwt.token-bound-issuer: it is empty"},
		"empty audience":         {"[oidc]\naudience = \"\"", "key oidc.audience: it is empty"},
		"issuer by http":         {"[[oidc.issuer]]\nurl = \"http://x\"", "server.toml:1: key oidc.issuer[0]: url: \"http://x\" is not https"},
		"issuer twice":           {"[[oidc.issuer]]\nurl = \"https://x\"\n[[oidc.issuer]]\nurl = \"https://x\"", "server.toml:3: key oidc.issuer[1]: https://x stands there twice"},
		"unknown key of oidc":    {"[oidc]\naudiense = \"x\"", "server.toml:2: key oidc.audiense: there is no such key; did you mean audience?"},
		// A misspelt condition would grant more than was meant.
		"unknown key of a policy":  {"[[trust]]\nname = \"a\"\n[[trust]]\nenvironmnt = \"production\"", "server.toml:4: key trust[1].environmnt: there is no such key; did you mean environment?"},
		"unknown key in a line":    {"trust = [{ name = \"a\" }, { reff = \"x\" }]", "server.toml:1: key trust[1].reff: there is no such key; did you mean ref?"},
		"policy without id":        {"[[trust]]\nname = \"a\"\ncaches = [\"x\"]\ngrant = [\"push\"]", `trust policy "a"`},
		"policy without audience":  {policy, "server.toml:1: key trust[0]: a policy needs [oidc] audience, or api-endpoint"},
		"policy of unknown issuer": {"api-endpoint = \"https://x/\"\n" + policy + "issuer = \"https://y\"\n", "server.toml:11: key trust[0].issuer: no [[oidc.issuer]] has the url \"https://y\""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text, env())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q shows a secret or has several lines", err)
			}
		})
	}
}

const policy = `[[trust]]
name = "infra"
repository-id = 123456789
ref = "refs/heads/main"
events = ["push", "workflow_dispatch", "schedule"]
caches = ["system"]
grant = ["pull", "push"]
pins = ["acme/infra/*"]
ttl = "15m"
`

func TestTrustAndIssuers(t *testing.T) {
	s, err := load(t, `api-endpoint = "https://cache.example.fly.dev/"
[[oidc.issuer]]
url = "https://gitlab.example.com"
jwks-file = "keys.json"
`+policy+`issuer = "https://gitlab.example.com"
`, env())
	if err != nil {
		// Whether this issuer's ids are numbers is package trust's to say.
		t.Fatal(err)
	}
	if len(s.Trust) != 1 || s.Trust[0].RepositoryID != 123456789 || s.Trust[0].TTL != "15m" || s.OIDC.Audience != "https://cache.example.fly.dev" {
		t.Errorf("%+v", s)
	}
	if len(s.OIDC.Issuers) != 2 || s.OIDC.Issuers[0].URL != trust.GitHub || s.OIDC.Issuers[1].JWKSFile != filepath.Join(filepath.Dir(s.File), "keys.json") {
		t.Errorf("issuers: %+v", s.OIDC.Issuers)
	}
}

func TestUnknownKeysInAtticsTablesAreWarnings(t *testing.T) {
	s, err := load(t, "[compression]\ntype = \"zstd\"\nlevle = 3\n[database]\nurl = \"sqlite://s?mode=rwc\"\npool = { a = 1, b = 2 }\n", env())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"server.toml:3: key compression.levle: there is no such key; did you mean level?; it is ignored",
		"server.toml:6: key database.pool: there is no such key; [database] has url, heartbeat; it is ignored",
	}
	if strings.Join(s.Warnings, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", s.Warnings)
	}
}

func TestRootKeyWantsEnoughBytes(t *testing.T) {
	for _, text := range []string{"x", "AAAA", base64.StdEncoding.EncodeToString(make([]byte, 31))} {
		if _, err := load(t, "", env(envRootKey, text)); err == nil || !strings.Contains(err.Error(), "openssl rand") || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(typical))
	f.Add([]byte(policy))
	f.Add([]byte("[[a.b]]\n[a.b.c]\nx = [{y = 1}, [{z.z = 2}]]\n\"a\\u0041\" = 1\r\n'q'.\"\" = 2"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parse("server.toml", text)
		if err != nil {
			return
		}
		b.getenv, b.data = env(), "/data"
		if s, err := b.server(); err == nil && s.Chunking.Validate() != nil {
			t.Errorf("%s: chunk sizes %+v", text, s.Chunking)
		}
	})
}
