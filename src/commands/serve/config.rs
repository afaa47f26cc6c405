//! Arguments → configuration of the server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cli::serve::ServeArgs;
use engine::EngineConfig;
use server::{Keys, ServerConfig, public_name};

use crate::error::UserError;

/// Refuses to serve other machines without a decision on who may use the server.
pub fn check_access(args: &ServeArgs) -> Result<()> {
    let decided = args.access.api_key_file.is_some() || args.access.no_auth;
    if args.host.is_loopback() || decided {
        return Ok(());
    }
    let error = UserError::new(format!("other machines may reach {}, and no key is asked for", args.host));
    Err(error
        .hint("`--api-key-file FILE` names a file of keys; `openssl rand -hex 32 > FILE` makes one")
        .hint("`--no-auth` lets everyone use the server who reaches it")
        .into())
}

/// The server's configuration.
pub fn server(args: &ServeArgs) -> Result<ServerConfig> {
    let origins = args.access.cors_origin.iter().map(|origin| origin.parse());
    let limits = &args.limits;
    Ok(ServerConfig {
        keys: keys(args)?,
        cors_origins: origins.collect::<Result<_, _>>().context("`--cors-origin`")?,
        aliases: aliases(args)?,
        max_body: limits.max_body as usize * (1 << 20),
        read_time: Duration::from_secs(limits.read_seconds.into()),
        max_connections: limits.max_connections as usize,
        drain_time: Duration::from_secs(limits.drain_seconds.into()),
        log_prompts: args.log_prompts,
    })
}

fn keys(args: &ServeArgs) -> Result<Option<Keys>> {
    let Some(path) = &args.access.api_key_file else { return Ok(None) };
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{shown}`"))?;
    Ok(Some(Keys::parse(&text).with_context(|| format!("`{shown}` cannot be used as a file of keys"))?))
}

fn aliases(args: &ServeArgs) -> Result<BTreeMap<String, String>> {
    let mut aliases = BTreeMap::new();
    for (name, model) in &args.models.alias {
        if aliases.insert(name.clone(), public_name(model)).is_some() {
            return Err(UserError::new(format!("`--alias {name}=…` is given twice")).into());
        }
    }
    Ok(aliases)
}

/// Refuses models of one name, other names for models that are not served, and those that a model
/// has itself.
pub fn check_aliases(args: &ServeArgs, models: &[EngineConfig]) -> Result<()> {
    let named = |model: &EngineConfig| public_name(&model.models.pair.name());
    let names: Vec<String> = models.iter().map(named).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        let error = UserError::new(format!("two models are called `{}`", twice.1));
        return Err(error.hint("requests name a model by the last part of its path; rename one").into());
    }
    for (name, model) in aliases(args)? {
        if !names.contains(&model) {
            let error = UserError::new(format!("`--alias {name}={model}`: no such model is served"));
            return Err(error.hint(format!("served: {}", names.join(", "))).into());
        }
        if names.contains(&name) {
            return Err(UserError::new(format!("`--alias {name}={model}`: a model has this name")).into());
        }
    }
    Ok(())
}
