//! What is served where. Every handler has one piece of work done by the core and sends its result.

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;

use super::model::{
    Answer, AttachRequest, Bypass, DetachRequest, ErrorAnswer, FlowQuery, MigrationRequest, Problem,
    SetState, SetWeight, TargetRequest, WhyFlowQuery, WhyWeightQuery,
};
use crate::daemon::core::Core;
use crate::daemon::{AttachOptions, Handle, ReloadError};
use crate::view;

/// Everything, for the unix socket.
pub fn all(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/targets", get(targets))
        .route("/v1/weights", get(weights))
        .route("/v1/flows", get(flows))
        .route("/v1/stats", get(stats))
        .route("/v1/queues", get(queues))
        .route("/v1/load", get(load))
        .route("/v1/health", get(health))
        .route("/v1/peers", get(peers))
        .route("/v1/migrations", get(migrations))
        .route("/v1/migration", post(migration))
        .route("/v1/plan", get(plan))
        .route("/v1/why/flow", get(why_flow))
        .route("/v1/why/weight", get(why_weight))
        .route("/v1/drain", post(drain))
        .route("/v1/undrain", post(undrain))
        .route("/v1/state", post(set_state))
        .route("/v1/weight", post(set_weight))
        .route("/v1/bypass", post(bypass))
        .route("/v1/reload", post(reload))
        .route("/v1/attach", post(attach))
        .route("/v1/confirm", post(confirm))
        .route("/v1/detach", post(detach))
        .route("/metrics", get(metrics))
        .fallback(async || Failure(StatusCode::NOT_FOUND, "there is no such route".to_owned(), Vec::new()))
        .with_state(handle)
}

/// Only `/metrics`, for loopback.
pub fn metrics_only(handle: Handle) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(handle)
}

/// A refusal: status, words, and what is wrong with the config if that is it.
struct Failure(StatusCode, String, Vec<Problem>);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorAnswer { error: self.1, problems: self.2 })).into_response()
    }
}

impl From<view::Error> for Failure {
    fn from(error: view::Error) -> Self {
        let status = match error {
            view::Error::NotFound(_) => StatusCode::NOT_FOUND,
            view::Error::Ambiguous { .. } | view::Error::Invalid(_) => StatusCode::BAD_REQUEST,
            view::Error::Maps(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string(), Vec::new())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<view::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self(StatusCode::CONFLICT, format!("{error:#}"), Vec::new()),
        }
    }
}

impl From<ReloadError> for Failure {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Config(problems) => {
                let list = problems.iter().map(Problem::from).collect();
                Self(StatusCode::BAD_REQUEST, "nothing was changed, the config has problems".to_owned(), list)
            }
            ReloadError::Failed(error) => error.into(),
        }
    }
}

type Reply<T> = Result<Json<Answer<T>>, Failure>;

fn answer<T: Serialize>(body: T) -> Json<Answer<T>> {
    Json(Answer::new(body))
}

async fn status(State(core): State<Handle>) -> Reply<super::model::Status> {
    Ok(answer(core.call(|core| core.status()).await??))
}

async fn services(State(core): State<Handle>) -> Reply<super::model::Services> {
    Ok(answer(core.call(|core| core.services()).await??))
}

async fn targets(State(core): State<Handle>) -> Reply<super::model::Targets> {
    Ok(answer(core.call(|core| core.targets()).await??))
}

async fn weights(State(core): State<Handle>) -> Reply<super::model::Weights> {
    Ok(answer(core.call(|core| core.weights()).await??))
}

async fn flows(State(core): State<Handle>, Query(query): Query<FlowQuery>) -> Reply<super::model::Flows> {
    Ok(answer(core.call(move |core| core.view()?.flows(&query)).await??))
}

async fn stats(State(core): State<Handle>) -> Reply<super::model::Stats> {
    Ok(answer(core.call(|core| core.stats()).await??))
}

async fn queues(State(core): State<Handle>) -> Reply<super::model::Queues> {
    Ok(answer(core.call(|core| core.queues()).await?))
}

async fn load(State(core): State<Handle>) -> Reply<super::model::Load> {
    Ok(answer(core.call(|core| core.load()).await?))
}

async fn health(State(core): State<Handle>) -> Reply<super::model::Health> {
    Ok(answer(core.call(|core| core.health()).await?))
}

async fn peers(State(core): State<Handle>) -> Reply<super::model::Peers> {
    Ok(answer(core.call(|core| core.peers()).await?))
}

async fn migrations(State(core): State<Handle>) -> Reply<super::model::Migrations> {
    Ok(answer(core.call(|core| core.migrations()).await??))
}

async fn migration(
    State(core): State<Handle>,
    Json(request): Json<MigrationRequest>,
) -> Reply<super::model::MigrationChanged> {
    Ok(answer(core.call(move |core| core.operator_says(&request)).await??))
}

async fn plan(State(core): State<Handle>) -> Reply<super::model::AttachPlan> {
    Ok(answer(core.call(|core| core.plan()).await?))
}

async fn why_flow(
    State(core): State<Handle>,
    Query(query): Query<WhyFlowQuery>,
) -> Reply<super::model::WhyFlow> {
    Ok(answer(core.call(move |core| core.why_flow(&query)).await??))
}

async fn why_weight(
    State(core): State<Handle>,
    Query(query): Query<WhyWeightQuery>,
) -> Reply<super::model::WhyWeight> {
    Ok(answer(core.call(move |core| core.why_weight(&query.target)).await??))
}

async fn drain(
    State(core): State<Handle>,
    Json(request): Json<TargetRequest>,
) -> Reply<super::model::Changed> {
    let state = Some(lbx_common::target::State::Draining);
    Ok(answer(core.wish_state(request.target, state).await??))
}

async fn undrain(
    State(core): State<Handle>,
    Json(request): Json<TargetRequest>,
) -> Reply<super::model::Changed> {
    Ok(answer(core.wish_state(request.target, None).await??))
}

async fn set_state(
    State(core): State<Handle>,
    Json(request): Json<SetState>,
) -> Reply<super::model::Changed> {
    let state = match request.state.as_deref() {
        None => None,
        Some(name @ ("active" | "draining" | "blackholed" | "moved" | "down")) => {
            lbx_common::target::State::from_name(name)
        }
        Some(other) => {
            let text = format!("\"{other}\" cannot be wished: active, draining, blackholed, moved or down");
            return Err(Failure(StatusCode::BAD_REQUEST, text, Vec::new()));
        }
    };
    Ok(answer(core.wish_state(request.target, state).await??))
}

async fn set_weight(
    State(core): State<Handle>,
    Json(request): Json<SetWeight>,
) -> Reply<super::model::Changed> {
    if request.weight.is_some_and(|weight| weight > 65_535) {
        let text = "a weight is 0 to 65535".to_owned();
        return Err(Failure(StatusCode::BAD_REQUEST, text, Vec::new()));
    }
    Ok(answer(core.call(move |core| core.wish_weight(&request.target, request.weight)).await??))
}

async fn bypass(State(core): State<Handle>, Json(request): Json<Bypass>) -> Reply<super::model::Changed> {
    Ok(answer(core.call(move |core| core.bypass(request.on)).await??))
}

async fn reload(State(core): State<Handle>) -> Reply<super::model::Reload> {
    Ok(answer(core.run(|core| Box::pin(core.reload())).await??))
}

async fn attach(
    State(core): State<Handle>,
    Json(request): Json<AttachRequest>,
) -> Reply<super::model::AttachPlan> {
    let plan = core.run(move |core| {
        Box::pin(async move {
            let options = AttachOptions { yes: request.yes, replace: request.replace };
            core.attach(&request.switches, options, request.observe).await.map(|()| core.plan())
        })
    });
    Ok(answer(plan.await??))
}

async fn confirm(State(core): State<Handle>) -> Reply<super::model::Changed> {
    Ok(answer(core.call(Core::confirm).await??))
}

async fn detach(
    State(core): State<Handle>,
    Json(request): Json<DetachRequest>,
) -> Reply<super::model::Changed> {
    Ok(answer(core.call(move |core| core.detach(&request.switches)).await??))
}

async fn metrics(State(core): State<Handle>) -> Result<Response, Failure> {
    let text = core.call(|core| crate::metrics::text(core)).await??;
    Ok(([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response())
}
