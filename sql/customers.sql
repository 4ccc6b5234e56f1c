-- One row a customer: who they are, what they have paid, the plan they are on.
WITH paid AS (
    SELECT
        customer_id,
        CAST(sum(amount * rate_to_eur) AS DECIMAL(14, 2)) AS lifetime_value,
        CAST(max(ordered_at AT TIME ZONE 'UTC') AS DATE) AS last_order_date
    FROM raw.orders
    WHERE status = 'paid'
    GROUP BY customer_id
),

-- A customer may hold several subscriptions: the dearest active one is the plan.
subscribed AS (
    SELECT customer_id, arg_max(plan, (mrr, id)) AS plan
    FROM raw.subscriptions
    WHERE status = 'active'
    GROUP BY customer_id
)

SELECT
    c.id AS customer_id,
    c.email,
    c.first_name AS firstname,
    c.last_name AS lastname,
    c.phone,
    c.city,
    c.country,
    coalesce(p.lifetime_value, 0) AS lifetime_value,
    s.plan,
    p.last_order_date,
    s.plan IS NOT NULL AND s.plan <> 'free' AS is_subscriber,
    c.marketing_consent,
    c.signup_at,
    c.notes,
    CAST(c.attributes AS VARCHAR) AS attributes_json
FROM raw.customers AS c
LEFT JOIN paid AS p ON p.customer_id = c.id
LEFT JOIN subscribed AS s ON s.customer_id = c.id
