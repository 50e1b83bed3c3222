{
  description = "Three machines made of the Debian packages of the machine that builds them: no inputs, no network";

  outputs = { self }:
    let
      # Written by scripts/demo: {"system": …, "foreign": …, "packages": [{"name": …, "deps": [name …]} …]}, dependencies
      # first. A flake may not look at the machine it is evaluated on, so the list of packages is a file of it.
      machine = builtins.fromJSON (builtins.readFile ./machine.json);

      # derive makes a store path with a shell script as its builder. The script is part of the derivation's text: as a file
      # of the flake it would have another store path at every change of the flake.
      derive = { system ? machine.system, script, ... }@attrs: derivation (removeAttrs attrs [ "script" ] // {
        inherit system;
        builder = "/bin/sh";
        args = [ "-c" script ];
      });

      # packages are all packages as store paths. Another base means that the lowest one was rebuilt: the same contents
      # under other store paths, all the way up.
      packages = base:
        let
          set = builtins.mapAttrs
            (name: p: derive {
              name = builtins.replaceStrings [ ":" "~" ] [ "-" "-" ] name;
              package = name;
              deps = map (d: set.${d}) p.deps;
              script = builtins.readFile ./package.sh;
              ${if p.deps == [ ] then "base" else null} = base;
            })
            known;
        in set;
      known = builtins.listToAttrs (map (p: { inherit (p) name; value = p; }) machine.packages);

      # closure is a list of package names and of all that they need.
      closure = names: map (x: x.key) (builtins.genericClosure {
        startSet = map (key: { inherit key; }) (builtins.filter (n: known ? ${n}) names);
        operator = x: map (key: { inherit key; }) known.${x.key}.deps;
      });

      # unit is a small file that names a package, as a system has hundreds.
      unit = package: n: derive {
        name = "unit-${toString n}.service";
        inherit package;
        script = ''
          printf '[Unit]\nDescription=Service ${toString n}\n\n[Service]\nExecStart=%s/bin/main --id ${toString n}\nRestart=always\n' "$package" > $out
        '';
      };

      host = { name, set, roots, units, motd }:
        let
          names = closure roots;
          common = closure [ "bash" "coreutils" "perl" ]; # what the units of all hosts name
          count = builtins.length common;
        in {
          config.networking.hostName = name;
          config.system.build.toplevel = derive {
            name = "nixos-system-${name}";
            inherit motd;
            packages = map (n: set.${n}) names;
            units = builtins.genList (n: unit set.${builtins.elemAt common (n - (n / count) * count)} n) units;
            script = ''
              PATH=/usr/bin:/bin
              mkdir -p $out/etc/units $out/sw
              for p in $packages; do ln -s $p $out/sw/; done
              for u in $units; do ln -s $u $out/etc/units/; done
              printf '%s' "$motd" > $out/etc/motd
            '';
          };
        };
    in {
      nixosConfigurations = {
        web = host {
          name = "web";
          set = packages (builtins.readFile ./hosts/web-base);
          roots = [ "bash" "coreutils" "git" "openssl" "perl" "findutils" "tar" "zstd" ];
          units = 60;
          motd = builtins.readFile ./hosts/web-motd;
        };
        db = host {
          name = "db";
          set = packages (builtins.readFile ./hosts/db-base);
          roots = [ "bash" "coreutils" "perl" "util-linux" "findutils" "tar" "zstd" "nix-bin" ];
          units = 60;
          motd = "db: be careful\n";
        };
        # A machine of another kind: it is found and evaluated, and not built where that can't be done.
        pi.config.system.build.toplevel = derive {
          name = "nixos-system-pi";
          system = machine.foreign;
          script = "echo pi > $out";
        };
      };
    };
}
