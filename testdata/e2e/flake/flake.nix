{
  description = "Hosts for the workflow tests: no inputs, no network, a second to build";

  outputs = { self }:
    let
      host = { name, system ? "x86_64-linux", fail ? false }: {
        config.system.build.toplevel = derivation {
          name = "nixos-system-${name}";
          inherit system;
          builder = "/bin/sh";
          dep = derivation {
            name = "dep-of-${name}";
            inherit system;
            builder = "/bin/sh";
            args = [ "-c" "echo what ${name} needs > $out" ];
          };
          args = [ "-c" (if fail then "echo the disk is on fire >&2; exit 1" else "echo ${name} $dep > $out") ];
        };
      };
      good = {
        web = host { name = "web"; };
        "db.prod" = host { name = "db-prod"; };
      };
    in {
      nixosConfigurations = good // (if builtins.pathExists ./bad then {
        broken = host { name = "broken"; fail = true; };
        evalfail = throw "this host does not evaluate";
      } else { }) // {
        pi = host { name = "pi"; system = "aarch64-linux"; };
      };
    };
}
