//! Launches of several processes: torchrun's, `gen launch`'s, Open MPI's, Slurm's and MPICH's, by their variables.

use std::fmt;

/// A launcher, by the variables that it sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// `gen launch`, torchrun, or whoever else sets `RANK` and `WORLD_SIZE`.
    Torchrun,
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// Slurm's `srun`.
    Slurm,
    /// MPICH's and Intel MPI's `mpirun`.
    Pmi,
}

/// One of several processes that a launcher started together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Number of this process among all, from 0.
    pub rank: usize,
    /// Number of processes, at least 2.
    pub world_size: usize,
    /// Number of this process among those of its machine, from 0.
    pub local_rank: usize,
    /// Number of processes on this machine.
    pub local_world_size: usize,
    /// Which launcher's variables told.
    pub launcher: Launcher,
    /// Host of the store that the processes meet at.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether this process serves the store.
    pub serves: bool,
    /// Prefix of the run's keys in the store: those of an earlier attempt may still be there.
    pub prefix: String,
}

/// Variables of a launcher that contradict each other or tell too little.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    /// The contradiction.
    pub message: String,
    /// Ways out.
    pub hint: String,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LaunchError {}

type Result<T> = std::result::Result<T, LaunchError>;

fn error(message: impl Into<String>, hint: impl Into<String>) -> LaunchError {
    LaunchError { message: message.into(), hint: hint.into() }
}

impl Launch {
    /// The launch that this process belongs to, by its environment; `None` for a single process. Slurm counts only
    /// inside `srun`: a batch script and `salloc` set some of its variables for a single process.
    ///
    /// # Errors
    /// Returns an error if variables are missing, are not numbers, or contradict each other.
    pub fn from_env() -> Result<Option<Launch>> {
        Launch::from_variables(|name| std::env::var(name).ok())
    }

    /// As [`Launch::from_env`], for any environment.
    ///
    /// # Errors
    /// As [`Launch::from_env`].
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
        let env = Variables(&get);
        let found = match () {
            () if env.has("RANK") || env.has("WORLD_SIZE") => torchrun(&env)?,
            () if env.has("OMPI_COMM_WORLD_SIZE") => {
                let names =
                    ["RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"].map(|n| format!("OMPI_COMM_WORLD_{n}"));
                mpi(&env, Launcher::OpenMpi, &names)?
            }
            () if env.has("SLURM_STEP_ID") && env.number("SLURM_STEP_NUM_TASKS")?.is_some_and(|n| n > 1) => {
                slurm(&env)?
            }
            () if env.has("PMI_SIZE") => {
                let names = ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"].map(String::from);
                mpi(&env, Launcher::Pmi, &names)?
            }
            () => return Ok(None),
        };
        found.check()?;
        Ok((found.world_size > 1).then_some(found))
    }

    /// Whether the launcher starts the processes again after a failure.
    pub fn is_restart(&self) -> bool {
        !self.prefix.ends_with("/0")
    }

    fn check(&self) -> Result<()> {
        let pairs = [
            ("rank", self.rank, "processes", self.world_size),
            ("local rank", self.local_rank, "processes on this machine", self.local_world_size),
        ];
        for (rank, number, of, size) in pairs {
            if number >= size {
                let message = format!("the launcher says {rank} {number} of {size} {of}; ranks count from 0");
                return Err(error(message, "start all processes with one launcher"));
            }
        }
        Ok(())
    }
}

struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.parse().map_err(|_| {
            error(
                format!("{name}={value}: not a whole number"),
                "the launcher sets this variable; unset it for one process",
            )
        })?;
        Ok(Some(number))
    }

    fn needed(&self, name: &str, beside: &str) -> Result<usize> {
        let missing = || {
            error(
                format!("{beside} is set and {name} is not"),
                "start all processes with one launcher, or unset its variables for a single process",
            )
        };
        self.number(name)?.ok_or_else(missing)
    }

    fn port(&self) -> Result<Option<u16>> {
        let Some(port) = self.number("MASTER_PORT")? else { return Ok(None) };
        let port = u16::try_from(port).ok().filter(|port| *port > 0);
        port.map(Some).ok_or_else(|| error("MASTER_PORT is not a port", "ports are 1 to 65535"))
    }

    fn prefix(&self, job: &str) -> String {
        let run = self.get("TORCHELASTIC_RUN_ID").unwrap_or_else(|| job.to_owned());
        let restart = self.get("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".into());
        format!("gen/{run}/{restart}")
    }
}

fn torchrun(env: &Variables<'_>) -> Result<Launch> {
    let rank = env.needed("RANK", "WORLD_SIZE")?;
    let world_size = env.needed("WORLD_SIZE", "RANK")?;
    let [local_rank, local_size] = ["LOCAL_RANK", "LOCAL_WORLD_SIZE"].map(|name| env.number(name));
    let (local_rank, local_world_size) = (local_rank?.unwrap_or(rank), local_size?.unwrap_or(world_size));
    let place = env.get("MASTER_ADDR").zip(env.port()?);
    let (host, port) = match place {
        Some(place) => place,
        None if world_size == 1 => (LOOPBACK.into(), 0),
        None => {
            return Err(error(
                "RANK and WORLD_SIZE are set, but MASTER_ADDR and MASTER_PORT are not",
                "give the host of rank 0 and a free port of it, as torchrun and `gen launch` do",
            ));
        }
    };
    // torchrun and `gen launch` serve the store themselves, and say so.
    let served =
        env.get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let (launcher, prefix) = (Launcher::Torchrun, env.prefix("run"));
    let serves = rank == 0 && !served;
    Ok(Launch { rank, world_size, local_rank, local_world_size, launcher, host, port, serves, prefix })
}

const LOOPBACK: &str = "127.0.0.1";
/// torchrun's default.
const PORT: u16 = 29500;

fn mpi(env: &Variables<'_>, launcher: Launcher, names: &[String; 4]) -> Result<Launch> {
    let [rank, size, local_rank, local_size] = names;
    let (rank, world_size) = (env.needed(rank, size)?, env.needed(size, rank)?);
    let local_rank = env.number(local_rank)?.unwrap_or(rank);
    let local_world_size = env.number(local_size)?.unwrap_or(world_size);
    let host = match env.get("MASTER_ADDR") {
        Some(host) => host,
        None if local_world_size == world_size => LOOPBACK.into(),
        None => {
            return Err(error(
                "the processes run on several machines, and MASTER_ADDR is not set",
                "`mpirun -x MASTER_ADDR=$(hostname) …` names the machine of rank 0",
            ));
        }
    };
    let job = ["PMIX_NAMESPACE", "PMI_JOBID"].iter().find_map(|name| env.get(name)).unwrap_or_default();
    let port =
        env.port()?.unwrap_or(if job.is_empty() { PORT } else { port_of(job.bytes().map(usize::from)) });
    let (serves, prefix) = (rank == 0, env.prefix(if job.is_empty() { "mpi" } else { &job }));
    Ok(Launch { rank, world_size, local_rank, local_world_size, launcher, host, port, serves, prefix })
}

fn slurm(env: &Variables<'_>) -> Result<Launch> {
    let rank = env.needed("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")?;
    let world_size = env.needed("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")?;
    let local_rank = env.needed("SLURM_LOCALID", "SLURM_PROCID")?;
    let node = env.number("SLURM_NODEID")?.unwrap_or(0);
    let tasks = env.get("SLURM_STEP_TASKS_PER_NODE").map(|list| tasks_per_node(&list)).unwrap_or_default();
    let local_world_size = tasks.get(node).copied().unwrap_or(world_size);
    let nodes = env.get("SLURM_STEP_NODELIST").unwrap_or_default();
    let no_host = || {
        error(
            "neither MASTER_ADDR nor SLURM_STEP_NODELIST names a machine",
            "set MASTER_ADDR to that of rank 0",
        )
    };
    let host = env.get("MASTER_ADDR").or_else(|| first_host(&nodes)).ok_or_else(no_host)?;
    let step = env.needed("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS")?;
    let job = env.number("SLURM_JOB_ID")?.unwrap_or(0);
    let port = env.port()?.unwrap_or_else(|| port_of([job, step].into_iter()));
    let (launcher, prefix) = (Launcher::Slurm, env.prefix(&format!("slurm-{job}.{step}")));
    Ok(Launch {
        rank,
        world_size,
        local_rank,
        local_world_size,
        launcher,
        host,
        port,
        serves: rank == 0,
        prefix,
    })
}

/// A port from 20000 to 39999 that all processes of a job compute alike.
fn port_of(numbers: impl Iterator<Item = usize>) -> u16 {
    let mixed = numbers.fold(0usize, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
    20_000 + u16::try_from(mixed % 20_000).unwrap_or(0)
}

/// `2(x3),1` → 2, 2, 2, 1. Empty where the list is not understood.
fn tasks_per_node(list: &str) -> Vec<usize> {
    let entry = |entry: &str| match entry.split_once("(x") {
        Some((tasks, times)) => {
            Some(vec![
                tasks.parse().ok()?;
                times.strip_suffix(')')?.parse::<usize>().ok().filter(|n| *n <= 1 << 20)?
            ])
        }
        None => Some(vec![entry.parse().ok()?]),
    };
    list.split(',').map(entry).collect::<Option<Vec<_>>>().map(|all| all.concat()).unwrap_or_default()
}

/// First host of a list as Slurm writes it: `node[001-004,7],other` → `node001`.
fn first_host(list: &str) -> Option<String> {
    let Some((name, rest)) = list.split_once('[').filter(|(name, _)| !name.contains(',')) else {
        return list.split(',').next().filter(|host| !host.is_empty()).map(str::to_owned);
    };
    let (range, after) = rest.split_once(']')?;
    let number = range.split([',', '-']).next()?;
    let suffix = after.split(',').next().unwrap_or("");
    Some(format!("{name}{number}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &str) -> Result<Option<Launch>> {
        let find = |name: &str| {
            let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next_back()
        };
        Launch::from_variables(find)
    }

    const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=gpu-07 MASTER_PORT=29500 \
                            TORCHELASTIC_RUN_ID=none TORCHELASTIC_RESTART_COUNT=1";

    #[test]
    fn torchrun_serves_the_store_where_it_says_so() {
        let launch = detect(TORCHRUN).unwrap().unwrap();
        assert_eq!(
            (launch.rank, launch.world_size, launch.local_rank, launch.local_world_size),
            (3, 4, 1, 2)
        );
        assert_eq!((launch.host.as_str(), launch.port, launch.serves), ("gpu-07", 29500, false));
        assert_eq!(launch.prefix, "gen/none/1");
        let first =
            |more: &str| detect(&format!("{TORCHRUN} RANK=0 LOCAL_RANK=0 {more}")).unwrap().unwrap().serves;
        assert!(first("") && !first("TORCHELASTIC_USE_AGENT_STORE=True"));
        assert_eq!(detect("RANK=0 WORLD_SIZE=1").unwrap(), None);
    }

    #[test]
    fn open_mpi_and_mpich() {
        let ours = "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 PMIX_NAMESPACE=1234567";
        let launch = detect(&format!("{ours} OMPI_COMM_WORLD_LOCAL_SIZE=2")).unwrap().unwrap();
        assert_eq!((launch.launcher, launch.host.as_str()), (Launcher::OpenMpi, "127.0.0.1"));
        assert!((20_000..40_000).contains(&launch.port));
        let several = format!("{ours} OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=1");
        assert!(detect(&several).unwrap_err().hint.contains("mpirun -x MASTER_ADDR"));
        let named = detect(&format!("{several} MASTER_ADDR=a MASTER_PORT=77")).unwrap().unwrap();
        assert_eq!((named.host.as_str(), named.port, named.local_world_size), ("a", 77, 1));
        let mpich = detect("PMI_RANK=0 PMI_SIZE=3 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=3").unwrap().unwrap();
        assert_eq!((mpich.launcher, mpich.world_size, mpich.serves), (Launcher::Pmi, 3, true));
    }

    #[test]
    fn slurm_counts_inside_srun_only() {
        let job = "SLURM_JOB_ID=77 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0";
        assert_eq!(detect(job).unwrap(), None, "a batch script, or salloc");
        let step = "SLURM_STEP_ID=3 SLURM_STEP_NUM_TASKS=7 SLURM_STEP_NODELIST=node[001-003,7] \
                    SLURM_STEP_TASKS_PER_NODE=2(x3),1 SLURM_NODEID=3 SLURM_PROCID=6";
        let launch = detect(&format!("{job} {step}")).unwrap().unwrap();
        assert_eq!((launch.rank, launch.world_size, launch.local_world_size), (6, 7, 1));
        assert_eq!((launch.host.as_str(), launch.port), ("node001", 22_390));
        assert_eq!(launch.prefix, "gen/slurm-77.3/0");
        assert_eq!(detect(&format!("{job} {step} SLURM_STEP_NUM_TASKS=1")).unwrap(), None);
    }

    #[test]
    fn lists_of_hosts_and_tasks() {
        for (list, first) in [("a,b", "a"), ("node7", "node7"), ("n[3,5]-ib,x", "n3-ib"), ("x,n[1-2]", "x")] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        assert_eq!(first_host(""), None);
        assert_eq!(tasks_per_node("4"), [4]);
        assert_eq!(tasks_per_node("x(y"), [] as [usize; 0]);
    }

    #[test]
    fn contradictions_are_errors() {
        for (variables, says) in [
            ("RANK=1", "WORLD_SIZE is not"),
            ("WORLD_SIZE=2", "RANK is not"),
            ("RANK=2 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1", "rank 2 of 2"),
            ("RANK=x WORLD_SIZE=2", "not a whole number"),
            ("RANK=0 WORLD_SIZE=2", "MASTER_ADDR"),
            ("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=0", "not a port"),
            (
                "RANK=0 WORLD_SIZE=2 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1",
                "local rank 2 of 2",
            ),
        ] {
            let found = detect(variables).unwrap_err();
            assert!(found.message.contains(says) && !found.hint.is_empty(), "{variables}: {found}");
        }
    }
}
